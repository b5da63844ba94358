"""With gradient checkpointing, the backward pass computes the activations of every layer again."""

import pytest

pytest.importorskip("keras")

from support.jobs import new_job

from clm_core.backend import StepDone
from clm_tf.keras3.backend import KerasBackend
from clm_tf.keras3.block import Block
from clm_tf.keras3.training import train


def test_each_layer_is_computed_twice_and_no_loss_changes(tmp_path, monkeypatch):
    calls, call = [], Block.call
    monkeypatch.setattr(Block, "call", lambda self, *args, **kwargs: calls.append(1) or call(self, *args, **kwargs))

    def follow(name, **options):
        calls.clear()
        job = new_job(KerasBackend(), tmp_path / name, **options)
        train(job)
        return len(calls), [event.loss for event in job.report.__self__ if isinstance(event, StepDone)]

    (once, expected), (twice, found) = follow("usual"), follow("lean", gradient_checkpointing=True)
    assert twice > once  # Python calls a layer only where a step is traced: once more for the backward pass.
    assert found == pytest.approx(expected, rel=1e-6)
