"""Which devices are used, what the processes of a command tell each other, and which of them says what."""

import json
import os
import subprocess
from dataclasses import replace

import pytest

from clm_core import marker
from clm_core.backend import ALONE, EvaluationJob, World, check_same
from clm_core.config import EvaluateConfig, TrainConfig
from clm_core.errors import Interrupted, LostProcessError, OptionError, ProcessError, StoppedError
from clm_core.launch import mailbox, processes, worker
from clm_core.launch.devices import awaited, launcher_of, unused, world_of
from clm_core.registry import get_backend
from clm_core.runs.advice import with_command
from clm_core.testing.tiny import tiny_model, validation_blocks


@pytest.fixture
def letters(tmp_path, monkeypatch):
    monkeypatch.setenv(mailbox.VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def parallel(monkeypatch):
    """A backend that trains on several devices, in as many processes as the option says."""
    backend = get_backend("bigram")
    monkeypatch.setattr(type(backend), "parallel", "for this test")
    monkeypatch.setattr(type(backend), "world", lambda self, asked: World(size=int(asked or 1)))
    return backend


def as_world(monkeypatch, **world):
    monkeypatch.setattr(worker, "_world", World(**world))


def test_processes_of_somebody_else_need_a_folder_that_they_share(parallel):
    with pytest.raises(OptionError, match="2 processes were started: give --output-dir"):
        world_of(parallel, TrainConfig(nproc_per_node="2"))
    assert world_of(parallel, TrainConfig(nproc_per_node="2", output_dir="run")).size == 2
    assert world_of(parallel, TrainConfig()) == ALONE


@pytest.mark.parametrize("other", [{"data": "b"}, {"blocks": validation_blocks()[:2]}])
def test_processes_that_score_something_else_are_told(other):
    job = EvaluationJob(
        model=tiny_model(None), blocks=validation_blocks(), config=EvaluateConfig(), report=print, data="a"
    )
    check_same([job.identity()] * 2)
    with pytest.raises(OptionError, match=f"process 1 differs from process 0 in {next(iter(other))}, .* in place of"):
        check_same([job.identity(), replace(job, **other).identity()])


def test_gpus_that_nobody_has_asked_for_are_mentioned(parallel, monkeypatch):
    monkeypatch.setattr(type(parallel), "accelerators", lambda self: 4)
    assert "4 GPUs are here" in unused(parallel, TrainConfig())
    assert unused(parallel, TrainConfig(nproc_per_node="1")) is None
    monkeypatch.setattr(type(parallel), "accelerators", lambda self: 1)
    assert unused(parallel, TrainConfig()) is None


def test_a_process_says_that_it_waits_for_others_unless_clm_has_started_them(monkeypatch, tmp_path):
    assert awaited(World(rank=1, size=2)).startswith("process 1 of 2, as the environment says")
    assert awaited(World(size=2, local=2)) is None
    monkeypatch.setenv("LOCAL_RANK", "1")  # Another one on this machine says it.
    assert awaited(World(rank=1, size=2)) is None
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv(mailbox.VARIABLE, str(tmp_path))
    assert awaited(World(rank=1, size=2)) is None


@pytest.mark.parametrize(("asked", "why"), [(None, "without --nproc-per-node"), ("2", "starts no processes")])
def test_arguments_for_a_launcher_that_there_is_not_are_rejected(asked, why, parallel):
    with pytest.raises(OptionError, match=why):
        launcher_of(parallel, TrainConfig(nproc_per_node=asked), ("--max-restarts", "2"))


@pytest.mark.parametrize("arguments", [("--nnodes", "2"), ("--nnodes=1:2",)])
def test_several_machines_are_recognized(arguments):
    assert processes.on_several_machines(arguments)
    assert not processes.on_several_machines(("--max-restarts", "2"))


def test_the_first_process_to_fail_is_the_one_that_is_heard(letters):
    assert mailbox.first_to_fail({"line": "the cause"})
    assert not mailbox.first_to_fail({"line": "another one ended"})
    assert json.loads(mailbox.take(mailbox.ERROR)) == {"line": "the cause"}


def test_a_failure_is_known_to_the_processes_of_its_start_alone(letters):
    assert not mailbox.has_one_failed()
    mailbox.first_to_fail({"line": "the cause"})
    assert mailbox.has_one_failed()
    os.utime(letters / mailbox.ERROR, (0, 0))
    assert not mailbox.has_one_failed()


def test_a_signal_is_not_for_a_process_that_has_ended(letters):
    ended = subprocess.Popen(["true"])
    ended.wait()
    mailbox.put(f"{mailbox.PROCESS}0", str(ended.pid))
    assert mailbox.first_process(letters) is None
    mailbox.put(f"{mailbox.PROCESS}1", str(os.getpid()))
    assert mailbox.first_process(letters) == os.getpid()


def test_a_word_for_a_process_that_is_gone_is_lost_without_an_error(letters):
    letters.rmdir()
    mailbox.put(mailbox.RESULT, "{}")
    assert not letters.exists()


def test_a_failure_from_before_the_processes_were_started_again_does_not_count(letters):
    (letters / mailbox.ERROR).write_text("{}")
    os.utime(letters / mailbox.ERROR, (0, 0))
    assert mailbox.first_to_fail({"line": "the cause"})


def test_what_processes_left_is_removed_once_their_launcher_is_gone(monkeypatch, tmp_path):
    monkeypatch.setattr(mailbox.tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    old, here, other = (tmp_path / f"clm-{os.getuid()}-{launcher}-failed" for launcher in (gone.pid, os.getpid(), "x"))
    for path in (old, here, other):
        path.touch()
    assert mailbox.first_to_fail({"line": "the cause"})
    assert not old.exists()
    assert here.exists()
    assert other.exists()


@pytest.mark.parametrize("left", [mailbox.STOPPED, mailbox.ERROR])
def test_a_launcher_that_waits_for_other_machines_after_a_stop_is_ended(left, letters, monkeypatch):
    monkeypatch.setattr(processes, "LONGEST_ALONE", 0.3)
    waiting = subprocess.Popen(["sleep", "60"], start_new_session=True)
    mailbox.put(left, json.dumps({"code": 143, "line": "stopped by SIGTERM"}), letters)
    processes._end_once_stopped(letters, waiting)
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        processes._raise_failure(letters, waiting.wait(10))


@pytest.mark.parametrize("why", ["a failure", "processes that are there", "a training that went on"])
def test_a_launcher_is_not_ended_for(why, letters, monkeypatch):
    monkeypatch.setattr(processes, "LONGEST_ALONE", 0.3)
    waiting = subprocess.Popen(["sleep", "2"], start_new_session=True)
    mailbox.put(mailbox.ERROR, json.dumps({"code": 70 if why == "a failure" else 143, "line": "why"}), letters)
    if why == "processes that are there":
        mailbox.put(f"{mailbox.PROCESS}0", str(waiting.pid), letters)
    if why == "a training that went on":
        mailbox.put(mailbox.RESULT, "{}", letters)
    processes._end_once_stopped(letters, waiting)
    assert waiting.wait() == 0


def test_what_stopped_as_asked_does_not_look_like_a_failure_to_a_launcher(letters):
    assert worker.code_after(StoppedError("saved", signum=15), 143) == 0
    assert worker.code_after(OptionError("wrong"), 2) == 2


def test_a_process_that_follows_says_nothing_of_a_stop_and_names_itself_otherwise(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(mailbox.tempfile, "tempdir", str(tmp_path))
    as_world(monkeypatch, rank=3, size=4)
    for error in (StoppedError(signum=15), OptionError("no such file"), OptionError("again")):
        worker.say(error)(f"clm: error: {error}")
    assert capsys.readouterr().err == "process 3: clm: error: no such file\n"
    assert not worker.prints()


@pytest.mark.parametrize(("error", "patient"), [(OptionError(), True), (Interrupted(15), False)])
@pytest.mark.parametrize("size", [1, 2])
def test_the_others_are_told_of_an_error_and_for_longer_if_it_is_no_signal(size, error, patient, parallel, monkeypatch):
    told = []
    monkeypatch.setattr(type(parallel), "come", lambda self: told.append("here"))
    monkeypatch.setattr(type(parallel), "leave", lambda self, *, patient: told.append(patient))
    monkeypatch.setattr(worker.signals, "answer_as_one_of_many", lambda is_over: None)
    as_world(monkeypatch)
    monkeypatch.setattr(worker, "_backend", None)
    worker.begin(parallel)
    worker.join(World(size=size))
    worker.tell(error)
    assert told == (["here", patient] if size > 1 else [])


def test_one_process_says_all_by_itself(monkeypatch, capsys):
    as_world(monkeypatch, size=2, local=2)
    worker.say(OptionError())("clm: error: wrong")
    assert capsys.readouterr().err == "clm: error: wrong\n"
    assert worker.prints()


def test_an_option_that_came_from_a_file_is_the_same_in_the_processes(tmp_path):
    from clm_core.options import resolve
    from clm_core.options.given import Given

    backend = get_backend("bigram")
    given = {"train_file": Given(["a b.txt"], "here"), "save_total_limit": Given("none", "here")}
    request = resolve.training(given, file=None, backend=backend)
    arguments = processes._arguments(tmp_path, "train", request, verbose=False)
    again = resolve.training({}, file=arguments[-1], backend=backend)
    assert replace(again.config) == request.config
    assert again.config.save_total_limit is None


@pytest.mark.parametrize(("code", "said"), [(137, "one of the processes was ended by SIGKILL"), (3, "with code 3")])
def test_an_end_that_no_process_has_said_anything_of_is_described_by_its_code(code, said, letters):
    with pytest.raises(ProcessError, match=said) as raised:
        processes._raise_failure(letters, code)
    assert raised.value.code == (code if code > 128 else 70)


def test_processes_that_end_because_one_was_killed_do_not_hide_by_which_signal(letters):
    mailbox.put(mailbox.ERROR, json.dumps({"code": 143, "line": "clm: ended by SIGTERM"}), letters)
    with pytest.raises(ProcessError, match="one of the processes was ended by SIGKILL"):
        processes._raise_failure(letters, 137)
    with pytest.raises(StoppedError):
        processes._raise_failure(letters, 143)


def test_the_signal_that_killed_another_process_is_that_of_the_command(letters, tmp_path):
    lost = {"code": 70, "line": "clm: error: another of the processes that train ended"}
    mailbox.put(mailbox.ERROR, json.dumps(lost), letters)
    with pytest.raises(ProcessError, match=r"^SIGKILL: another of the processes that train ended$") as raised:
        processes._raise_failure(letters, 137)
    assert raised.value.code == 137
    (tmp_path / "run" / "checkpoint-4").mkdir(parents=True)
    marker.mark(tmp_path / "run" / "checkpoint-4", step=4, backend="pt", identity={}, chosen={})
    said = str(with_command(raised.value, tmp_path / "run", "pt"))
    assert said.endswith(f"to resume: clm --backend pt train --resume-from-checkpoint {tmp_path}/run")


@pytest.mark.parametrize("advised", [False, True])
def test_whether_a_process_has_said_how_to_go_on_is_told_by_its_error_and_not_by_its_words(
    advised, letters, monkeypatch
):
    as_world(monkeypatch, rank=1, size=2)
    line = f"clm: error: {'the end' if advised else 'to resume: there is no checkpoint'}"
    worker.say(LostProcessError(advised=advised))(line)
    with pytest.raises(ProcessError) as raised:
        processes._raise_failure(letters, 1)
    said = str(with_command(raised.value, letters / "run", "pt"))
    assert said == line.removeprefix("clm: error: ") + "; there is no checkpoint" * (not advised)
