"""The curves for TensorBoard are scalars, as scripts look for them."""

import warnings

import pytest

from clm_core.errors import OutputError

pytest.importorskip("tensorboard")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_every_figure_of_the_history_is_a_scalar_at_its_step(train, tmp_path):
    result = train(output_dir=tmp_path / "run", report_to="tensorboard", logging_steps=5)
    curves = EventAccumulator(str(tmp_path / "run" / "logs")).Reload()
    lines = [line for line in result.history if "loss" in line]
    assert [(event.step, event.value) for event in curves.Scalars("train/loss")] == [
        (line["step"], pytest.approx(line["loss"])) for line in lines
    ]
    assert curves.Scalars("eval/perplexity")[-1].value == pytest.approx(result.after["perplexity"])
    assert curves.Tags()["tensors"] == []
    shown = {f"train/{name}" for line in lines for name, value in line.items() if name != "step" and value is not None}
    assert shown | {f"eval/{name}" for name in result.after} == set(curves.Tags()["scalars"])


def test_curves_are_not_written_to_where_a_link_leads(train, tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    train(output_dir=run, max_steps=4, save_strategy="steps", save_steps=2)
    (run / "logs").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="run/logs is a link"):
        train(resume_from_checkpoint=run / "checkpoint-2", report_to="tensorboard")
    assert list(elsewhere.iterdir()) == []


def test_a_file_in_the_place_of_their_folder_is_named(train, tmp_path):
    run = train(output_dir=tmp_path / "run", max_steps=4, save_strategy="steps", save_steps=2).output_dir
    (run / "logs").touch()
    (run / "checkpoint-4" / "checkpoint.json").unlink()
    with pytest.raises(OutputError, match="run/logs is a file in the place of the folder for curves: remove it"):
        train(resume_from_checkpoint=run / "checkpoint-2", report_to="tensorboard")
    assert (run / "results.json").is_file()
