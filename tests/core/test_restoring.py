"""What is changed or removed of a run while it is trained is put back before its results prove the rest."""

import os
import shutil

import pytest
from clm_bigram import Bigrams
from support.folders import history
from support.heard import Heard

import clm_core as clm
from clm_core import record
from clm_core.errors import DiskError, OptionError, OutputError

OPTIONS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "logging_steps": 1, "output_dir": "run"}


@pytest.fixture
def changed_in_step_4(train, monkeypatch, tmp_path):
    """Train while something is done to the folder of the run in the fourth step; returns what was said of it."""

    def run(change, **options):
        add, steps = Bigrams.add, iter(range(3))

        def add_and_change(self, blocks):
            if next(steps, None) is None and not changes.append(None) and len(changes) == 1:
                change(tmp_path / "run")
            add(self, blocks)

        changes, heard = [], Heard()
        monkeypatch.setattr(Bigrams, "add", add_and_change)
        train(**{**OPTIONS, "progress": heard, **options})
        monkeypatch.setattr(Bigrams, "add", add)
        return [line for line in heard.lines if "restored" in line]

    return run


CHANGES = {
    "removed": lambda file: file.unlink(),
    "cut off": lambda file: os.truncate(file, 100),
    "emptied": lambda file: file.write_text(""),
    "another": lambda file: file.write_bytes(file.read_bytes().replace(b"1", b"2")),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("name", ["history.jsonl", "run.yaml"])
def test_a_file_that_was_damaged_meanwhile_is_restored_before_it_is_proved(
    changed_in_step_4, train, tmp_path, name, how
):
    said = changed_in_step_4(lambda run: CHANGES[how](run / name))
    assert said == [f"run/{name} was changed or removed while the run was trained: restored"]
    result = train(**OPTIONS | {"output_dir": "whole"})
    assert history(tmp_path / "run") == history(result.output_dir)
    assert (tmp_path / "run" / "run.yaml").read_text() == (tmp_path / "whole" / "run.yaml").read_text().replace(
        "whole", "run"
    )
    assert clm.verify("run").state == "whole"


def test_nothing_is_said_of_what_nobody_touched(changed_in_step_4):
    assert changed_in_step_4(lambda run: None) == []


@pytest.mark.parametrize("name", ["history.jsonl", "run.yaml"])
def test_a_run_that_was_proved_without_a_file_is_damaged_and_the_same_command_finishes_it_again(train, tmp_path, name):
    train(**OPTIONS)
    (tmp_path / "run" / name).unlink()
    record.write_results(tmp_path / "run", record.without_sums(record.read_results(tmp_path / "run")))
    assert clm.verify("run").parts[0].faults == (f"{name} is missing",)
    if name == "run.yaml":
        with pytest.raises(OptionError, match=r"repeat the command .*, with --resume-from-checkpoint auto"):
            clm.train(backend="bigram", resume_from_checkpoint="run")
    assert train(**OPTIONS, resume_from_checkpoint="auto").steps == 6
    assert clm.verify("run").state == "whole"


@pytest.mark.parametrize(("removed", "left"), [(".model-*", "run/checkpoint-6 is complete"), ("", "no checkpoint")])
def test_a_folder_that_is_removed_meanwhile_is_named_with_what_there_is_of_the_run(changed_in_step_4, removed, left):
    def remove(run):
        (found,) = run.glob(removed) if removed else [run]
        shutil.rmtree(found)

    with pytest.raises(DiskError, match=rf"^run\S* cannot be written: it was removed, or .*{left}"):
        changed_in_step_4(remove)


@pytest.mark.parametrize("name", ["history.jsonl", "run.yaml", "model.safetensors", "results.json"])
def test_a_folder_that_takes_the_place_of_a_file_meanwhile_ends_the_training_by_name(changed_in_step_4, name):
    def put(run):
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    with pytest.raises(
        DiskError, match=rf"^run/{name} is a folder in the place of a file: remove it; run/check.* to resume"
    ):
        changed_in_step_4(put)


@pytest.mark.parametrize("lost", [[], ["results.json", "checkpoint-6/checkpoint.json"]], ids=["finished", "half"])
@pytest.mark.parametrize("name", ["history.jsonl", "run.yaml", "model.safetensors", "config.json", "tokenizer.json"])
def test_a_folder_in_the_place_of_a_file_is_named_before_anything_is_changed(train, tmp_path, name, lost):
    train(**OPTIONS)
    for path in (name, *lost):
        (tmp_path / "run" / path).unlink()
    (tmp_path / "run" / name).mkdir()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    for way in ({"resume_from_checkpoint": "auto"}, {"overwrite_output_dir": True}):
        with pytest.raises(
            OutputError, match=rf"^run/{name} is a folder in the place of a file of the run: remove it$"
        ):
            train(**OPTIONS, **way)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    (tmp_path / "run" / name).rmdir()
    assert train(**OPTIONS, resume_from_checkpoint="auto").steps == 6
