"""A training that began on one backend goes on on another as if it had begun there."""

import pytest
from small_models import new_model

from clm_core.backend import Evaluated
from clm_core.comparison.compare import without_dropout
from clm_core.testing import losses, run
from clm_pt.backend import PyTorchBackend
from clm_tf.backend import TensorFlowBackend
from clm_tf.keras3.backend import KerasBackend

SAVING = {
    "max_steps": 8,
    "warmup_steps": 2,
    "weight_decay": 0.5,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": None,
}
PT, TF, KERAS = PyTorchBackend(), TensorFlowBackend(), KerasBackend()
OLD = [(first, then, kind) for first, then in ((TF, PT), (PT, TF)) for kind in ("gpt2", "roformer", "xlnet")]
"""In two of these, some parameters are not trained, or get no gradient."""
NEW = [(KERAS, PT, "qwen3"), (PT, KERAS, "gemma3_text"), (TF, KERAS, "gpt2")]


HALF = {"dtype": "bfloat16"}


@pytest.mark.parametrize(("first", "then"), [(PT, KERAS), (KERAS, PT)], ids=["pt to keras", "keras to pt"])
@pytest.mark.parametrize("options", [{}, HALF], ids=["float32", "bfloat16"])
def test_what_bfloat16_weights_have_begun_goes_on_in_the_other_framework(first, then, options, tmp_path):
    model = new_model("qwen3")
    without_dropout(model.architecture)
    whole = run(first, tmp_path / "whole", model=model, **SAVING, **HALF)
    rest = run(
        then, tmp_path / "rest", model=model, resume_from=tmp_path / "whole" / "checkpoint-3", **SAVING, **options
    )
    assert losses(rest) == pytest.approx(losses(whole)[3:], rel=5e-3)


@pytest.mark.parametrize(
    ("first", "then", "kind"), [pytest.param(*it, id=f"{it[2]}, {it[0].name} to {it[1].name}") for it in OLD + NEW]
)
def test_moments_schedule_and_order_go_on_in_the_other_framework(first, then, kind, tmp_path):
    model = new_model(kind)
    without_dropout(model.architecture)
    whole = run(first, tmp_path / "whole", model=model, **SAVING)
    rest = run(then, tmp_path / "rest", model=model, resume_from=tmp_path / "whole" / "checkpoint-3", **SAVING)
    assert losses(rest) == pytest.approx(losses(whole)[3:], rel=2e-5)
    ends = [trace.of(Evaluated)[-1].score.loss for trace in (rest, whole)]
    assert ends[0] == pytest.approx(ends[1], rel=2e-5)
