"""A training that began in one framework goes on in the other as if it had begun there."""

import pytest
from small_models import new_model

from clm_core.backend import Evaluated
from clm_core.comparison.compare import without_dropout
from clm_core.testing import losses, run
from clm_pt.backend import PyTorchBackend
from clm_tf.backend import TensorFlowBackend

SAVING = {
    "max_steps": 8,
    "warmup_steps": 2,
    "weight_decay": 0.5,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": None,
}
PT, TF = PyTorchBackend(), TensorFlowBackend()


@pytest.mark.parametrize("kind", ["gpt2", "roformer", "xlnet"])  # In two, some are not trained, or get no gradient.
@pytest.mark.parametrize(("first", "then"), [(TF, PT), (PT, TF)], ids=["tf to pt", "pt to tf"])
def test_moments_schedule_and_order_go_on_in_the_other_framework(first, then, kind, tmp_path):
    model = new_model(kind)
    without_dropout(model.architecture)
    whole = run(first, tmp_path / "whole", model=model, **SAVING)
    rest = run(then, tmp_path / "rest", model=model, resume_from=tmp_path / "whole" / "checkpoint-3", **SAVING)
    assert losses(rest) == pytest.approx(losses(whole)[3:], rel=2e-5)
    ends = [trace.of(Evaluated)[-1].score.loss for trace in (rest, whole)]
    assert ends[0] == pytest.approx(ends[1], rel=2e-5)
