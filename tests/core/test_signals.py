"""Signals end a command cleanly, with 128 + n and a line; a second one at once; and only where a command was run."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from clm_bigram import BigramBackend

from clm_core import cli
from clm_core.comparison import compare
from clm_core.data import cache, preparation, split_writer
from clm_core.errors import Interrupted
from clm_core.screen.progress import Progress

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
LINES = {number: f"clm: ended by {number.name}\n" for number in ALL} | {signal.SIGINT: "clm: interrupted\n"}

PROMPT = "prompt (end with Ctrl-D):"

WITHIN = """import os, signal, sys, time, threading
from clm_core.screen import signals
from clm_core.stopping import Stop
def send(number): os.kill(os.getpid(), number)
"""


def send(number=signal.SIGTERM):
    assert signal.getsignal(number) is not signal.SIG_DFL  # Of the process that runs the tests.
    os.kill(os.getpid(), number)


def sent(number=signal.SIGTERM):
    """A function that sends this process a signal, in place of another one."""
    return lambda *given, **named: send(number)


def unignored():
    """In a process to be: no signal is ignored, as Ctrl-C is in what a shell runs in the background."""
    for number in ALL:
        signal.signal(number, signal.SIG_DFL)


def run(program, *more, **how):
    """Run a program in a process; returns its code and what it printed."""
    code = WITHIN + program
    usual = {"preexec_fn": unignored, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run([sys.executable, "-c", code, *more], **{**usual, **how})
    return done.returncode, done.stdout, done.stderr


@contextmanager
def reading(**how):
    """A `clm generate` that waits for its prompt, and the first line that it prints."""
    ours, its = pty.openpty()
    argv = [sys.executable, "-m", "clm_core", "generate", "--model-name-or-path", "x"]
    usual = {"preexec_fn": unignored, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, stdin=its, **{**usual, **how}) as process:
        try:
            assert process.stderr.readline().strip() == PROMPT
            yield process
        finally:
            process.kill()
            os.close(ours)
            os.close(its)


@pytest.mark.parametrize("number", ALL)
def test_a_command_that_waits_for_a_person_ends_with_the_signals_code_and_a_line(number):
    with reading() as process:
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr.read() == LINES[number]


def test_a_signal_that_is_ignored_stays_ignored():
    with reading(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert process.stderr.read() == LINES[signal.SIGTERM]


@pytest.mark.parametrize(
    ("module", "argv"),
    [
        ("clm_core.screen", ["backends"]),
        ("clm_core.cli", ["backends"]),
        # Half of it is there then, and asked for a token, which the last line must not show.
        (
            "huggingface_hub.utils._safetensors",
            ["--backend", "bigram", "generate", "--model-name-or-path", "jane/fox", "Why"],
        ),
    ],
)
def test_ctrl_c_while_something_is_imported_ends_the_program_without_a_traceback(module, argv):
    program = f"""
class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name.startswith({module!r}):
            sys.meta_path.remove(self)
            send(signal.SIGINT)
for name in [name for name in sys.modules if name.startswith("clm_core")]:
    del sys.modules[name]
sys.meta_path.insert(0, AtImport())
from clm_core.__main__ import main
main()"""
    code, out, err = run(program, *argv)
    assert out == ""
    assert (code, err) in [(130, LINES[signal.SIGINT]), (-signal.SIGINT, "")]


@pytest.mark.parametrize("work", ["time.sleep(60)", "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"])
def test_a_second_signal_ends_a_command_at_once_also_within_a_library(work):
    program = f"""import hashlib
def later():
    for number in (signal.SIGUSR1, signal.SIGTERM):
        time.sleep(0.2)
        send(number)
threading.Thread(target=later).start()
with signals.handled():
    try:
        {work}
    finally:
        time.sleep(60)"""
    assert run(program) == (143, "", LINES[signal.SIGTERM])


def test_a_signal_that_comes_twice_at_a_time_is_one():
    program = """
stop = Stop()
with signals.handled(), signals.passed_to(stop):
    for signals.TWICE in (60.0, 60.0, 0.0):
        print(stop.signum)
        send(signal.SIGTERM)
        time.sleep(0.1)
    time.sleep(60)"""
    code, out, err = run(program)
    assert (code, out) == (143, "None\n15\n15\n")
    assert err.splitlines() == ["SIGTERM: finishing the step and saving; again to end at once", "clm: ended by SIGTERM"]


@pytest.mark.parametrize(("saves", "way"), [(True, "finishing the step and saving"), (False, "finishing the step")])
def test_a_training_is_asked_to_stop_and_is_not_ended(saves, way):
    program = f"""
stop = Stop(saves={saves})
with signals.handled(), signals.passed_to(stop):
    send(signal.SIGUSR1)
    assert stop.requested and stop.signum == signal.SIGUSR1
    send(signal.SIGTERM)
    time.sleep(60)"""
    code, _, err = run(program)
    assert code == 143
    assert err.splitlines() == [f"SIGUSR1: {way}; again to end at once", "clm: ended by SIGTERM"]


def test_a_training_that_ends_because_another_has_failed_does_not_say_that_it_saves():
    program = """
stop = Stop()
signals.answer_as_one_of_many(lambda: True)
with signals.handled(), signals.passed_to(stop):
    send(signal.SIGTERM)
    assert stop.requested
    os._exit(0)"""
    assert run(program) == (0, "", "")


@pytest.mark.parametrize("then", ["", "with signals.passed_to(Stop()): print('trained')", "raise ImportError"])
def test_a_signal_whose_error_a_library_caught_is_not_lost(then):
    program = f"""
with signals.handled():
    try:
        send(signal.SIGTERM)
    except:
        print("caught")
    {then}"""
    code, out, err = run(program)
    assert (code, out) == (1, "caught\n")
    assert err.endswith("clm_core.errors.Interrupted: 15\n")


def test_an_error_of_a_training_that_was_asked_to_stop_is_not_taken_for_the_signals():
    program = """
with signals.handled(), signals.passed_to(Stop()):
    send(signal.SIGTERM)
    raise OSError("no space")"""
    code, _, err = run(program)
    assert (code, err.splitlines()[-1]) == (1, "OSError: no space")


def test_a_forked_process_has_the_signals_as_they_were_and_tells_its_parent_nothing():
    program = """
signal.signal(signal.SIGINT, signal.SIG_DFL)
with signals.handled():
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        child = os.fork()
        if not child:
            send(number)
            time.sleep(60)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""
    assert run(program) == (0, "-2\n-2\n-15\n", "")


def test_the_handlers_are_put_back_and_none_is_taken_from_python(train, monkeypatch, tmp_path):
    found = []
    usual = BigramBackend.train

    def look(self, job):
        found.append([signal.getsignal(number) for number in ALL])
        usual(self, job)

    monkeypatch.setattr(BigramBackend, "train", look)
    before = [signal.getsignal(number) for number in ALL]
    train(output_dir=tmp_path / "python")
    assert found == [before]
    assert cli.main(["--backend", "bigram", "train", "--max-steps", "1", "--output-dir", "command"]) == 0
    assert found[1] != before
    assert [signal.getsignal(number) for number in ALL] == before
    assert signal.set_wakeup_fd(-1) == -1
    codes = []
    thread = threading.Thread(target=lambda: codes.append(cli.main(["backends"])))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.fixture
def ended(capsys, corpus):
    """Run a command on the corpus that SIGTERM ends: with one line, and nothing left."""

    def run(*argv, left=()):
        assert cli.main([*argv, "--train-file", str(corpus), "--tokenizer-name", "sample"]) == 143
        assert capsys.readouterr().err.splitlines()[-1] == "clm: ended by SIGTERM"
        found = [
            path for path in Path.cwd().rglob("*") if path.name != "cache" and not {".locks", ".stamps"} & {*path.parts}
        ]
        assert sorted(path.name for path in found) == sorted([corpus.name, *left])

    return run


PREPARE = ["prepare", "--block-size", "16"]
TRAIN = ["--backend", "bigram", "train", "--model-type", "gpt2", "--block-size", "16", "--output-dir", "run"]


@pytest.mark.parametrize(
    ("argv", "where", "name"),
    [
        (PREPARE, split_writer.SplitWriter, "add"),
        ([*PREPARE, "--preprocessing-num-workers", "3", "--output-dir", "out"], split_writer.SplitWriter, "add"),
        (PREPARE, preparation, "write_manifest"),
        ([*PREPARE, "--output-dir", "new/out"], cache, "_move"),
        (TRAIN, split_writer.SplitWriter, "finish"),
        (TRAIN, preparation, "choose_engine"),
    ],
)
def test_a_preparation_that_is_ended_leaves_nothing(ended, monkeypatch, argv, where, name):
    monkeypatch.setattr(where, name, sent())
    ended(*argv, left=["new"] if "new/out" in argv else [])


def test_a_command_that_waits_for_the_cache_can_be_ended(ended, monkeypatch, tmp_path):
    lock = cache.lock

    def wait(target):
        threading.Timer(0.2, send).start()
        return lock(target)

    monkeypatch.setattr(cache, "lock", wait)
    with Path(lock(tmp_path / "out").lock_file).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # As another process has it.
        ended(*PREPARE, "--output-dir", "out")


def test_data_that_is_being_replaced_is_put_back(ended, prepare, monkeypatch, tmp_path):
    prepare(output_dir=tmp_path / "out")
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    usual = Path.rename

    def rename(self, target):
        usual(self, target)
        if self == Path("out"):
            send()

    monkeypatch.setattr(Path, "rename", rename)
    ended(*PREPARE, "--output-dir", "out", "--seed", "7", "--overwrite-cache", left=["out", *files])
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files


def test_an_evaluation_that_is_ended_writes_no_result(train, monkeypatch, capsys, tmp_path):
    train(output_dir=tmp_path / "run")
    monkeypatch.setattr(BigramBackend, "evaluate", sent(signal.SIGUSR2))
    argv = ["--model-name-or-path", "run", "--config", "sample", "--output-file", "result.json"]
    assert cli.main(["--backend", "bigram", "evaluate", *argv]) == 140
    assert capsys.readouterr().err.splitlines()[-1] == "clm: ended by SIGUSR2"
    assert not Path("result.json").exists()


def test_a_side_of_a_comparison_ends_with_it_and_nothing_is_left(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho begun\ncat\necho done > ended\n")
    python.chmod(0o700)

    class Interrupting(Progress):
        def say(self, line):
            assert line == "pt: begun"
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        compare._run_side("pt", str(python), tmp_path, Interrupting())
    assert Path("ended").read_text() == "done\n"


def test_a_side_whose_parent_dies_ends_as_if_it_were_asked_to():
    program = """
with signals.taken():
    try:
        with signals.handled():
            signals.end_with_parent()
            time.sleep(60)
    except KeyboardInterrupt as error:
        print("removed")
        signals.leave(128 + error.signum)"""
    assert run(program, stdin=subprocess.DEVNULL) == (143, "removed\n", "")
