"""`clm verify` names what is damaged in a run, a checkpoint or prepared data, and says what proves nothing."""

import json
import os
import re
import shlex
import shutil
from itertools import product

import pytest
from small_corpus import DOCUMENTS, SMALL

import clm_core as clm
from clm_core import cli
from clm_core.data.manifest import AGAIN
from clm_core.durable import checksums
from clm_core.errors import OptionError
from clm_core.record import read_results, without_sums, write_results
from clm_core.runs import leftovers

DAMAGES = {
    "cut in half": lambda path, other: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path, other: path.write_bytes(b""),
    "deleted": lambda path, other: path.unlink(),
    "flipped": lambda path, other: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 0x40])),
    "appended": lambda path, other: path.write_bytes(path.read_bytes() + b"x"),
    "swapped": lambda path, other: path.write_bytes((other / path.name).read_bytes()),
    "linked": lambda path, other: path.symlink_to(shutil.move(path, other / "moved")),
    "a pipe": lambda path, other: (path.unlink(), os.mkfifo(path)),
}
FILES = {
    "run": ["history.jsonl", "model.safetensors", "results.json", "run.yaml"],
    "run/checkpoint-4": ["checkpoint.json", "history.jsonl", "model.safetensors", "pending_losses.json"],
    "data": ["manifest.json", "train.bin", "validation.ends"],
}
OTHER = {"run": "run-2", "run/checkpoint-4": "run/checkpoint-2", "data": "data-2"}
MATRIX = [(place, name, damage) for place, names in FILES.items() for name, damage in product(names, DAMAGES)]
MATRIX = [case for case in MATRIX if case[0] != "data" or case[2] != "linked"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two runs with two checkpoints each, and two folders of prepared data."""
    folder = tmp_path_factory.mktemp("written")
    data = {"train_file": folder / "corpus.jsonl", "tokenizer_name": "sample", "block_size": 16}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLM_CACHE", str(folder / "cache"))
        data["train_file"].write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
        steps = {"backend": "bigram", "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
        for end, seed in (("", 42), ("-2", 1)):
            clm.train(**{**SMALL, **data, **steps}, seed=seed, output_dir=folder / f"run{end}")
            clm.prepare(**data, seed=seed, output_dir=folder / f"data{end}")
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy of them."""
    return shutil.copytree(written, tmp_path / "there", ignore=shutil.ignore_patterns("cache"))


@pytest.fixture
def verify(capsys):
    """The code and the lines of `clm verify`."""

    def run(path):
        code = cli.main(["verify", str(path)])
        return code, capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize(("place", "parts"), [("run", 3), ("run/checkpoint-4", 1), ("data", 1)])
def test_what_nobody_touched_is_whole(folder, verify, place, parts):
    code, lines = verify(folder / place)
    assert code == 0
    assert [line.split()[0] for line in lines] == ["whole"] * parts
    assert lines[0].endswith(" bytes, as they were written")


@pytest.mark.parametrize(("place", "name", "damage"), MATRIX)
def test_a_damaged_file_is_named(folder, verify, place, name, damage):
    DAMAGES[damage](folder / place / name, folder / OTHER[place])
    code, lines = verify(folder / place)
    if (name, damage) == ("results.json", "deleted"):  # It is written last.
        assert (code, lines[0].split()[0]) == (0, "unfinished")
    else:
        assert (code, lines[0].split(": ")[0]) == (1, f"damaged     {folder / place}")
        # A record of another run is as it was written, but what it lists is not there.
        assert name in lines[0] or (damage == "swapped" and name in ("results.json", "manifest.json"))


def test_every_damaged_file_of_every_part_is_named_and_the_command_that_replaces_them(folder, verify):
    for name in ("model.safetensors", "history.jsonl", "checkpoint-4/checkpoint.json", "checkpoint-4/config.json"):
        (folder / "run" / name).write_text("{}")
    code, lines = verify(folder / "run")
    assert (code, len(lines), lines[1].split()[0]) == (1, 5, "model.safetensors")
    assert [line.split()[0] for line in lines] == ["damaged", "model.safetensors", "whole", "damaged", "next"]
    command = f"clm --backend bigram train --resume-from-checkpoint {folder / 'run'}   (from checkpoint-2)"
    assert lines[-1] == f"next        {command}"


def test_a_checkpoint_under_the_name_of_another_is_damaged(folder, verify):
    (folder / "run" / "checkpoint-4").rename(folder / "run" / "checkpoint-6")
    code, lines = verify(folder / "run")
    assert (code, lines[2]) == (1, f"damaged     {folder}/run/checkpoint-6: checkpoint.json is of step 4")


def test_a_checkpoint_that_is_not_complete_is_damaged(folder, verify):
    (folder / "run" / "checkpoint-10").mkdir()
    code, lines = verify(folder / "run")
    assert (code, lines[3].split(": ")[1]) == (1, "checkpoint.json is missing")


def test_a_checkpoint_on_a_disk_that_is_gone_is_damaged(folder, verify):
    checkpoint = folder / "run" / "checkpoint-4"
    shutil.rmtree(checkpoint)
    checkpoint.symlink_to(folder / "gone")
    code, lines = verify(folder / "run")
    assert (code, lines[2]) == (1, f"damaged     {checkpoint}: it is a link to {folder}/gone, which is not there")


def test_a_checkpoint_on_another_disk_is_checked_through_the_link_to_its_folder(folder, verify):
    checkpoint = folder / "run" / "checkpoint-4"
    checkpoint.symlink_to(shutil.move(checkpoint, folder / "moved"))
    assert verify(folder / "run")[0] == 0
    (folder / "moved" / "history.jsonl").write_text("")
    assert verify(folder / "run")[0] == 1


def test_without_checksums_nothing_is_proved_and_nothing_is_said_to_be_damaged(folder, verify):
    for record in folder.glob("run/**/*.json"):
        if record.name in ("results.json", "checkpoint.json"):
            content = json.loads(record.read_text())
            record.write_text(json.dumps({key: content[key] for key in content if key not in ("files", "sha256")}))
    code, lines = verify(folder / "run")
    assert (code, [line.split()[0] for line in lines]) == (2, ["unproved"] * 3)


def test_of_a_run_that_is_not_finished_the_checkpoints_are_checked(folder, verify):
    (folder / "run" / "results.json").unlink()
    assert verify(folder / "run")[0] == 0
    for step in (2, 4):
        shutil.rmtree(folder / "run" / f"checkpoint-{step}")
    code, lines = verify(folder / "run")
    assert (code, [line.split()[0] for line in lines]) == (2, ["unfinished", "next"])
    command = f"clm train --resume-from-checkpoint {folder / 'run'}"  # Which backend it was is not known.
    assert lines[1] == f"next        {command}   (from the beginning)"
    assert cli.main(["--backend", "bigram", *shlex.split(command)[1:]]) == 0


@pytest.mark.parametrize("damage", ["emptied", "deleted", "linked", "a pipe", "appended"])
def test_of_a_run_that_is_not_finished_the_options_are_read(folder, verify, damage):
    (folder / "run" / "results.json").unlink()
    DAMAGES[damage](folder / "run" / "run.yaml", folder / "run-2")
    code, lines = verify(folder / "run")
    assert (code, [line.split()[0] for line in lines]) == (1, ["damaged", "whole", "whole", "next"])
    assert "run.yaml" in lines[0]
    assert lines[-1] == "next        repeat the command that started the run, with --resume-from-checkpoint auto"


def test_a_run_that_began_from_another_one_begins_there_again(folder, verify):
    from_other = {"resume_from_checkpoint": folder / "run" / "checkpoint-2", "output_dir": folder / "new"}
    clm.train(backend="bigram", **from_other)
    (folder / "new" / "results.json").unlink()
    shutil.rmtree(folder / "new" / "checkpoint-4")
    _, lines = verify(folder / "new")
    command = f"clm --backend bigram train --resume-from-checkpoint {folder / 'new'}"
    assert lines[1] == f"next        {command}   (from {folder}/run/checkpoint-2)"
    assert cli.main(shlex.split(command)[1:]) == 0
    assert (folder / "new" / "model.safetensors").read_bytes() == (folder / "run" / "model.safetensors").read_bytes()


def test_a_run_that_waits_to_be_replaced_is_checked_and_the_command_that_puts_it_back_works(folder, verify):
    leftovers.set_aside(folder / "run")
    (folder / "run" / "run.yaml").write_text("max_steps: 1\ntrain_file: corpus.jsonl\n")  # The new one, killed then.
    code, lines = verify(folder / "run")
    assert (code, [line.split()[0] for line in lines]) == (0, ["unfinished", "whole", "whole", "whole", "next"])
    assert re.search(r"made no step, and the run that it was to replace waits in .*/run/\.replaced-\w+$", lines[0])
    command = lines[-1].removeprefix("next        clm ").split("   (any training there puts")[0]
    assert cli.main(shlex.split(command)) == 0
    code, lines = verify(folder / "run")
    assert (code, [line.split()[0] for line in lines[-3:]]) == (0, ["whole"] * 3)
    assert not list((folder / "run").glob(".*"))


def test_a_run_that_is_half_moved_is_not_said_to_be_damaged(folder, verify):
    (folder / "run" / ".replacing-1").mkdir()
    (folder / "run" / "model.safetensors").rename(folder / "run" / ".replacing-1" / "model.safetensors")
    code, lines = verify(folder / "run")
    assert (code, [line.split()[0] for line in lines]) == (2, ["unfinished", "next"])
    assert lines[0].endswith("/run/.replacing-1")


LISTED = [None, 7, [], ["run.yaml"], {"model.safetensors": 7}, {"/etc/passwd": {"size": 1, "sha256": ""}}]


@pytest.mark.parametrize("listed", LISTED, ids=str)
@pytest.mark.parametrize("name", ["run/results.json", "run/checkpoint-4/checkpoint.json"])
def test_a_record_that_somebody_else_sealed_proves_nothing(folder, verify, name, listed):
    forged = checksums.seal({**json.loads((folder / name).read_text()), "files": listed})
    (folder / name).write_text(json.dumps(forged))
    code, lines = verify((folder / name).parent)
    assert (code, lines[0].split()[0]) == (1, "damaged")


@pytest.mark.parametrize("content", ["", "[]", "{", "7", "[" * 100_000, "\0"])
@pytest.mark.parametrize("name", ["run/results.json", "run/checkpoint-4/checkpoint.json", "data/manifest.json"])
def test_a_record_that_is_none_is_damaged(folder, verify, name, content):
    (folder / name).write_text(content)
    code, lines = verify((folder / name).parent)
    assert (code, lines[0].split()[0]) == (1, "damaged")


def test_the_result_is_the_same_from_python_and_as_json(folder, capsys):
    (folder / "run" / "run.yaml").unlink()
    found = clm.verify(folder / "run")
    assert (found.state, found.kind, found.parts[0].faults) == ("damaged", "run", ("run.yaml is missing",))
    assert cli.main(["verify", str(folder / "run"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == found.to_dict()


@pytest.mark.parametrize(
    ("place", "name"),
    [("run", "model.safetensors"), ("run", "tokenizer.json"), ("run/checkpoint-4", "config.json")],
)
def test_a_model_that_is_damaged_is_neither_scored_nor_continued_nor_trained(folder, refused, place, name):
    DAMAGES["flipped"](folder / place / name, folder)
    said = f"{folder / place} is damaged: {name} does not match its checksum: use another checkpoint"
    new = ["train", "--train-file", folder / "corpus.jsonl", "--output-dir", folder / "new"]
    for command in (["evaluate", *new[1:3]], ["generate", "Why"], new):
        assert said in refused("--backend", "bigram", *command, "--model-name-or-path", folder / place)


def test_a_model_is_used_whatever_else_of_its_folder_is_damaged_or_belongs_to_other_programs(folder):
    damages = {"history.jsonl": "", "results.json": "[]", "checkpoint.json": "7", "generation_config.json": "{}"}
    for name, content in damages.items():
        (folder / "run" / name).write_text(content)
    assert clm.evaluate(backend="bigram", model_name_or_path=folder / "run").metrics["loss"] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda path: path.write_text('{"eos_token_id": 1}'), "does not match its checksum"), (os.unlink, "is missing")],
)
def test_a_setting_that_a_person_has_changed_is_used_and_named(folder, capfd, change, said):
    run = folder / "run"
    (run / "generation_config.json").write_text('{"eos_token_id": 0}')
    write_results(run, without_sums(read_results(run)))
    generate = ["--backend", "bigram", "generate", "Why", "--model-name-or-path", str(run)]
    assert (cli.main(generate), "as it is" in capfd.readouterr().err) == (0, False)
    change(run / "generation_config.json")
    assert cli.main(generate) == 0
    line = f"{run} is not as the training wrote it, and is used as it is: generation_config.json {said}"
    assert line in capfd.readouterr().err


@pytest.mark.parametrize("name", ["results.json", "model.safetensors"])
def test_a_run_that_is_damaged_is_not_published(folder, refused, name):
    DAMAGES["flipped"](folder / "run" / name, folder)
    assert name in refused("push", folder / "run")
    assert clm.verify(folder / "run").state == "damaged"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "there is nothing to verify in"),
        ("corpus.jsonl", "corpus.jsonl is a file: give the folder of"),
        ("run/run.yaml", "run.yaml is a file: give the folder of"),
        ("rum", "there is no folder .*rum; did you mean .*run"),
        ("run/checkpoint-5", "there is no folder .*checkpoint-5; did you mean"),
    ],
)
def test_what_has_no_record_is_refused_with_what_is_there(folder, place, message):
    with pytest.raises(OptionError, match=message):
        clm.verify(folder / place)


def test_an_inspection_of_prepared_data_says_what_a_verification_says(folder, verify, refused):
    train = folder / "data" / "train.bin"
    train.write_bytes(bytes(train.stat().st_size))
    said = "train.bin does not match its checksum"
    assert verify(folder / "data") == (1, [f"damaged     {folder}/data: {said}", f"next        {AGAIN}"])
    assert refused("inspect", folder / "data", "--verify") == f"clm: error: {folder}/data/{said}: {AGAIN}\n"
