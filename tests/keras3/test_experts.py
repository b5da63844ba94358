"""Mixtures: a training adds to its loss what PyTorch's classes add for an uneven use of the experts, and says so."""

import math

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("keras")

import tensorflow as tf
import torch
from support.jobs import new_job, new_model
from transformers import AutoConfig

from clm_core.backend import StepDone
from clm_core.testing.tiny import VOCABULARY
from clm_tf.keras3 import modeling
from clm_tf.keras3.backend import KerasBackend
from clm_tf.keras3.training import train
from tests.keras3.small_decoders import build

IDS = np.random.default_rng(5).integers(4, 128, (2, 12)).astype(np.int32)


@pytest.mark.parametrize(("name", "recompute"), [("olmoe-routed", False), ("qwen3_moe-mixed", True)])
def test_what_is_added_and_its_gradient_are_pytorchs(name, recompute, tmp_path):
    model, ids = build(name), torch.tensor(IDS).long()
    model.save_pretrained(tmp_path)
    found = modeling.load(tmp_path)
    found.recompute = recompute
    loss = model.config.router_aux_loss_coef * model(ids).aux_loss
    loss.backward()
    wanted = loss.item()
    with tf.GradientTape() as tape:
        found(IDS, training=True)
        (added,) = found.losses
    gradient = tf.convert_to_tensor(tape.gradient(added, found.embeddings.embeddings.value)).numpy()
    assert float(added) == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(gradient, model.get_input_embeddings().weight.grad.numpy(), rtol=1e-3, atol=1e-6)
    assert float(found.get_metrics_result()["auxiliary_loss"]) == pytest.approx(wanted, rel=1e-5)


def test_a_report_has_the_loss_of_the_tokens_and_what_is_added_apart(tmp_path):
    small = {"hidden_size": 16, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "output_router_logits": True, "router_aux_loss_coef": 0.1}
    architecture = AutoConfig.for_model("olmoe", vocab_size=VOCABULARY, pad_token_id=1, **small, **experts)
    job = new_job(KerasBackend(), tmp_path, model=new_model(architecture=architecture), gradient_accumulation_steps=2)
    train(job)
    first = next(event for event in job.report.__self__ if isinstance(event, StepDone))
    assert first.loss == pytest.approx(math.log(VOCABULARY), rel=0.02)  # First weights know nothing yet, and routers
    assert first.auxiliary_loss == pytest.approx(0.1 * 2, rel=0.05)  # choose 2 of 4 experts evenly.
