"""The curves for TensorBoard are scalars, as scripts look for them."""

import warnings

import pytest

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
