"""What of a folder belongs to the run in it, and is replaced with it."""

import pytest
from support.folders import names

from clm_core import cli
from clm_core.errors import OutputError

NOTES = ("notes.txt", "vectors.safetensors", "logs/slurm-17.out")


def test_a_run_that_is_overwritten_takes_nothing_of_a_person_with_it(train, tmp_path):
    train(output_dir="run", max_steps=2)
    (tmp_path / "run" / "logs").mkdir()
    for name in NOTES:
        (tmp_path / "run" / name).write_text("mine")
    train(output_dir="run", max_steps=1, overwrite_output_dir=True)
    assert [(tmp_path / "run" / name).read_text() for name in NOTES] == ["mine"] * 3
    assert [name for name in names(tmp_path / "run") if name.startswith("checkpoint-")] == ["checkpoint-1"]


@pytest.mark.parametrize("more", [{}, {"overwrite_output_dir": True}, {"resume_from_checkpoint": "auto"}])
def test_a_checkpoint_is_not_replaced_by_a_run(train, tmp_path, more):
    train(output_dir="run", max_steps=2, save_strategy="steps", save_steps=1)
    with pytest.raises(OutputError, match="run/checkpoint-1 is a checkpoint, which a run would replace"):
        train(output_dir="run/checkpoint-1", **more)
    assert cli.main(["verify", "run"]) == 0
