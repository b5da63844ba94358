"""However a command ends: one line, a code of the table, and the traceback of what nobody foresaw in a file."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from clm_bigram import BigramBackend
from safetensors import SafetensorError

from clm_core import cli, durable, options, record
from clm_core.errors import HubError, Interrupted, OptionError, OutputError, StoppedError, first_line
from clm_core.redaction import without_secrets
from clm_core.screen.endings import ERROR_LOG, end, line_of
from clm_core.screen.exit_codes import ExitCode, code_of

TRAIN = ["--backend", "bigram", "train", "--max-steps", "4", "--save-strategy", "steps", "--save-steps", "2"]
TRAIN += ["--save-total-limit", "none"]
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def crash(monkeypatch, capsys, tmp_path):
    """Run a training that an error ends, before its first step or after its last; returns its code and its lines."""

    def run(error, *argv, late=True):
        usual = BigramBackend.train

        def train(self, job):
            if late:
                usual(self, job)
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(BigramBackend, "train", train)
            patch.setattr(tempfile, "tempdir", str(tmp_path))
            code = cli.main([*TRAIN, "--output-dir", "run", *argv])
        return code, capsys.readouterr().err.splitlines()

    return run


def clm(*argv, **streams):
    command = [sys.executable, "-m", "clm_core", *argv]
    return subprocess.run(command, check=False, **streams)


def test_an_error_nobody_foresaw_is_one_line_that_names_the_log_in_the_folder_of_the_run(crash):
    code, lines = crash(KeyError("exp_avg"))
    assert code == ExitCode.CRASHED
    assert lines[-1] == f"clm: error: unexpected KeyError: 'exp_avg' (traceback: run/{ERROR_LOG})"
    assert not any("Traceback" in line for line in lines)
    log = Path("run", ERROR_LOG).read_text()
    assert "Traceback (most recent call last)" in log
    assert "--output-dir run" in log


def test_where_no_step_was_made_the_log_is_in_the_temporary_folder(crash, tmp_path):
    code, lines = crash(ValueError("odd\nand more"), late=False)
    (log,) = tmp_path.glob("clm-error-*.log")
    assert (code, lines[-1]) == (70, f"clm: error: unexpected ValueError: odd (traceback: {log})")
    assert "and more" in log.read_text()
    assert not Path("run").exists()


def test_the_log_is_not_written_through_a_link_that_came_to_be_in_its_place(crash, monkeypatch, tmp_path):
    usual = BigramBackend.train

    def train(self, job):
        usual(self, job)
        (job.output_dir / ERROR_LOG).symlink_to(tmp_path / "elsewhere")

    monkeypatch.setattr(BigramBackend, "train", train)
    crash(KeyError("exp_avg"))
    assert "exp_avg" in Path("run", ERROR_LOG).read_text()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("option", ["--output-dir", "--resume-from-checkpoint", "--model-name-or-path", "--config"])
def test_a_name_that_no_file_can_have_is_a_mistake_of_its_own(option, capsys):
    assert cli.main(["--backend", "bigram", "train", option, "x" * 300]) == ExitCode.INPUT
    assert capsys.readouterr().err.endswith(": File name too long\n")


def test_a_zero_byte_is_no_text(tmp_path, capsys):
    (tmp_path / "own.yaml").write_text('output_dir: "a\\0b"\n')
    assert cli.main(["--backend", "bigram", "train", "--config", str(tmp_path / "own.yaml")]) == ExitCode.INPUT
    assert "output_dir must be text, not 'a\\x00b'" in capsys.readouterr().err


def test_where_nothing_can_be_written_the_line_says_so_and_verbose_prints_it(crash, monkeypatch):
    monkeypatch.setattr("clm_core.screen.endings._write", lambda *given: (_ for _ in ()).throw(FULL))
    assert "could not be saved: --verbose prints it" in crash(ValueError("odd"), late=False)[1][-1]
    assert "ValueError: odd" in crash(ValueError("odd"), "--verbose", late=False)[1][-2]


def test_the_log_has_what_the_framework_wrote_and_no_secret(crash, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-mine")
    secret = "a-secret-of-mine at https://jane:pass1234@host/x?sig=abc with hf_abcdefghijkl"

    class Loud(ValueError):
        def __init__(self):
            super().__init__(secret)

    _, lines = crash(Loud())
    text = lines[-1] + Path("run", ERROR_LOG).read_text()
    assert text.count("*** at https://***@host/x with ***") == 2
    assert not any(part in text for part in ("of-mine", "pass1234", "sig=", "abcdefgh"))


def test_a_log_goes_when_the_run_goes_on_and_is_never_published(crash):
    crash(KeyError("exp_avg"))
    assert ERROR_LOG in record.WRITTEN
    assert not record.is_shared(ERROR_LOG)
    resumed = ["--backend", "bigram", "train", "--resume-from-checkpoint", "run", "--max-steps", "6"]
    assert cli.main(resumed) == 0
    assert not Path("run", ERROR_LOG).exists()


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (MemoryError(), 70, "out of memory"),
        (RecursionError("maximum recursion depth exceeded"), 70, "nested too deeply"),
        (FULL, 4, "the disk is full: run: free some space"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "x/model"), 4, "the disk is full: x/model"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 4, "the disk is full: run"),
        (PermissionError(errno.EACCES, "Permission denied", "data/x"), 2, "data/x: Permission denied"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), 2, "set TMPDIR"),
        (KeyboardInterrupt(), 130, "clm: interrupted"),
        (Interrupted(signal.SIGUSR2), 140, "clm: ended by SIGUSR2"),
        (HubError("nobody is logged in"), 2, "nobody is logged in"),
    ],
)
def test_every_error_has_its_code_and_its_line(crash, error, code, says):
    found, lines = crash(error)
    assert (found, says in lines[-1]) == (code, True), lines


@pytest.mark.parametrize(("signum", "code"), [(None, 5), (signal.SIGTERM, 143)])
def test_a_training_that_was_stopped_is_no_error(capsys, signum, code):
    assert end(StoppedError("stopped at step 2", signum=signum), [], verbose=False) == code
    assert capsys.readouterr().err == "clm: stopped at step 2\n"


def test_an_error_while_a_signal_ends_a_command_is_said_with_it(crash):
    error = OutputError("run cannot be put back")
    error.__context__ = Interrupted(signal.SIGTERM)
    assert crash(error)[0] == 143
    assert line_of(error) == "ended by SIGTERM: run cannot be put back"


def test_a_full_disk_is_found_under_an_error_of_ours():
    with pytest.raises(OutputError) as caught:
        durable.write(Path("/dev/full/x"), "text")
    assert code_of(caught.value) == ExitCode.INPUT
    error = OutputError("cannot write x")
    error.__context__ = FULL
    assert code_of(error) == ExitCode.DISK_FULL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdefgh1234", "Authorization: Bearer ***"),
        ("git+https://user:ghp_abcdefgh12345678@github.com/x", "git+https://***@github.com/x"),
        ("s3://key:secret@bucket/file", "s3://***@bucket/file"),
        ("see https://huggingface.co/docs, and hf_hub", "see https://huggingface.co/docs, and hf_hub"),
        ("mail jane@example.org", "mail jane@example.org"),
    ],
)
def test_secrets_are_taken_out_and_nothing_else(text, expected):
    assert without_secrets(text) == expected


def test_a_token_that_cannot_be_read_is_no_hindrance(tmp_path, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", tmp_path.read_text)
    assert without_secrets("stopped by SIGTERM") == "stopped by SIGTERM"


def test_a_run_in_the_current_folder_is_written_resumed_and_overwritten(tmp_path, monkeypatch, capsys):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert cli.main([*TRAIN, "--output-dir", "."]) == 0
    resumed = ["--backend", "bigram", "train", "--resume-from-checkpoint", "checkpoint-2"]
    assert cli.main(resumed) == 0
    assert cli.main([*TRAIN, "--output-dir", ".", "--overwrite-output-dir"]) == 0
    assert Path("results.json").is_file()
    assert [path.name for path in tmp_path.iterdir() if "replaced" in path.name] == []
    assert cli.main(["prepare", "--output-dir", "."]) == 2
    assert "output_dir . is the current folder" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[" * 5000, "{" * 5000, "- " * 5000, "a: " + "[{" * 3000])
def test_yaml_of_thousands_of_brackets_is_one_line(tmp_path, text):
    (tmp_path / "deep.yaml").write_text(text)
    with pytest.raises(OptionError, match=r"deep\.yaml is nested too deeply"):
        options.from_file(tmp_path / "deep.yaml")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
def test_output_that_takes_no_more_is_a_full_disk_and_messages_that_are_lost_end_nothing(tmp_path):
    with Path("/dev/full").open("w") as full:
        done = clm("backends", stdout=full, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr.count("\n")) == (4, 1)
        assert "standard output cannot be written: No space left on device" in done.stderr
        for more in (["--output-dir", "run"], ["--output-dir", "verbose", "--verbose"]):
            assert clm(*TRAIN, *more, stdout=subprocess.DEVNULL, stderr=full).returncode == 0
    assert json.loads(Path("run/results.json").read_text())["steps"] == 4


def test_closed_streams_end_nothing_and_get_nothing_of_a_file():
    command = f'exec "{sys.executable}" -m clm_core {" ".join(TRAIN)} --output-dir run <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
    assert json.loads(Path("run/results.json").read_text())["steps"] == 4


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("no room\nat all", "no room"),
        (
            "Validation error for field 'eps':\n    TypeError: not a float",
            "Validation error for field 'eps': TypeError: not a float",
        ),
        ("first:\n\nsecond:\nthird\nfourth", "first: second: third"),
        ("nothing follows:", "nothing follows:"),
        ("", "ValueError"),
    ],
)
def test_a_line_that_announces_the_next_one_is_given_with_it(said, line):
    assert first_line(ValueError(said)) == line
