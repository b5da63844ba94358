"""An adapter that one backend has trained goes on, is scored and generates on another, and opens in plain peft."""

from dataclasses import replace

import numpy as np
import pytest
from small_models import new_model

pytest.importorskip("peft")

from clm_core.backend import Evaluated, Model
from clm_core.comparison.compare import without_dropout
from clm_core.testing import generate, logits, losses, run, validation_blocks
from clm_core.testing.trace import evaluate
from clm_pt.backend import PyTorchBackend
from clm_tf.backend import TensorFlowBackend
from clm_tf.keras3.backend import KerasBackend

PT, TF, KERAS = PyTorchBackend(), TensorFlowBackend(), KerasBackend()
OPTIONS = {
    "max_steps": 8,
    "warmup_steps": 2,
    "weight_decay": 0.5,
    "learning_rate": 1e-2,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": None,
    "lora_r": 2,
    "lora_alpha": 8,
    "use_rslora": True,
    "lora_target_modules": ("all-linear",),
}
PAIRS = [(PT, KERAS, "gpt2", "ln_f"), (KERAS, TF, "gpt2", "ln_f"), (TF, PT, "mistral", "lm_head")]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A model of this type in a folder, the same for all backends."""

    def build(kind):
        new = new_model(kind)
        without_dropout(new.architecture)
        trace = run(PT, tmp_path_factory.mktemp(kind) / "base", model=new, max_steps=1)
        return replace(new, name_or_path=str(trace.job.model_dir))

    return {kind: build(kind) for kind in ("gpt2", "mistral")}


def of_run(trace):
    """The model that a run has written: its base, and the adapter beside it."""
    model: Model = trace.job.model
    return replace(model, adapter=replace(model.adapter, folder=str(trace.job.model_dir)))


@pytest.mark.parametrize(
    ("first", "then", "kind", "kept"), [pytest.param(*it, id=f"{it[2]}, {it[0].name} to {it[1].name}") for it in PAIRS]
)
def test_an_adapter_that_began_on_one_backend_goes_on_on_another(first, then, kind, kept, bases, tmp_path):
    given = {**OPTIONS, "model": bases[kind], "lora_modules_to_save": (kept,)}
    whole = run(first, tmp_path / "whole", **given)
    rest = run(then, tmp_path / "rest", resume_from=tmp_path / "whole" / "checkpoint-3", **given)
    assert losses(rest) == pytest.approx(losses(whole)[3:], rel=2e-5)
    ends = [trace.of(Evaluated)[-1].score.loss for trace in (rest, whole)]
    assert ends[0] == pytest.approx(ends[1], rel=2e-5)
    model = of_run(whole)
    assert evaluate(then, model=model).loss == pytest.approx(ends[1], rel=1e-5)
    assert generate(then, model=model) == generate(first, model=model)
    expected = in_peft(whole.job.model_dir)
    for backend in (first, then):
        np.testing.assert_allclose(logits(backend, model), expected, atol=2e-5)


def in_peft(folder):
    """The logits of what lies in a folder, opened by peft alone."""
    import torch
    from peft import AutoPeftModelForCausalLM

    with torch.no_grad():
        return AutoPeftModelForCausalLM.from_pretrained(folder)(
            torch.tensor(validation_blocks().astype(np.int64))
        ).logits
