"""A training reports what it did, saves what it has, and goes on from there as if nothing had happened."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import tf_keras
from safetensors.numpy import load_file, save_file
from shrink import shrink

from clm_core.backend import BatchScored, Evaluated, Model, Saved, StepDone
from clm_core.errors import ModelError
from clm_core.models.causality import make_causal
from clm_tf import modeling
from clm_tf.backend import TensorFlowOptions
from clm_tf.training import train


def run(job):
    """Train, and return the events."""
    train(job)
    return job.report.__self__


def losses(events):
    return [event.loss for event in events if isinstance(event, StepDone)]


def weights(job):
    return load_file(job.model_dir / "model.safetensors")


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.fixture(scope="module")
def plain(new_job):
    """A job that has run, with nothing but defaults."""
    job = new_job(max_steps=4)
    run(job)
    return job


@pytest.fixture(scope="module")
def saved(new_job):
    """A job that has run, with a checkpoint at its end."""
    job = new_job(max_steps=2, save_strategy="epoch")
    run(job)
    return job


@pytest.fixture(scope="module")
def in_eights(new_job):
    """The events of two epochs, eight blocks in a batch."""
    return run(new_job(num_train_epochs=2, per_device_train_batch_size=8))


def test_the_loss_falls_and_every_step_is_reported_in_order(new_job, blocks):
    events = run(new_job(validation=blocks[:5], num_train_epochs=2, save_strategy="epoch"))
    assert [e.step for e in events if isinstance(e, StepDone)] == list(range(1, 15))
    assert [e.step for e in events if isinstance(e, Evaluated)] == [0, 7, 14]
    assert [e.step for e in events if isinstance(e, Saved)] == [7, 14]
    assert [type(e) for e in events[-4:]] == [StepDone, BatchScored, Evaluated, Saved]
    scores = [e.score for e in events if isinstance(e, Evaluated)]
    assert scores[-1].loss < scores[0].loss
    assert scores[0].tokens == 5 * 11


def test_the_first_loss_is_that_of_the_first_batch(plain, blocks):
    model = modeling.load(plain.model)
    batch = blocks[next(iter(plain.schedule.batches(0)))].astype(np.int64)
    expected = float(model(batch, labels=batch).loss[0])
    np.testing.assert_allclose(losses(plain.report.__self__)[:1], [expected], rtol=1e-6)


@pytest.mark.parametrize(("batch", "accumulation"), [(2, 4), (4, 2)])
def test_accumulated_batches_count_as_one(new_job, in_eights, batch, accumulation):
    parts = run(
        new_job(num_train_epochs=2, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
    )
    np.testing.assert_allclose(losses(parts), losses(in_eights), rtol=0, atol=2e-6)
    norms = [[event.grad_norm for event in events if isinstance(event, StepDone)] for events in (parts, in_eights)]
    np.testing.assert_allclose(*norms, rtol=1e-4)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_continued_training_equals_an_uninterrupted_one_bit_for_bit(new_job, new_model, accumulation):
    options = {
        "model": new_model(dropout=0.1),
        "max_steps": 8,
        "gradient_accumulation_steps": accumulation,
        "save_strategy": "steps",
        "save_steps": 5,
        "save_total_limit": None,
    }
    whole = new_job(**options)
    events = run(whole)
    continued = new_job(**options, resume_from=whole.output_dir / "checkpoint-5")
    assert run(continued) == [
        replace(event, path=continued.output_dir / "checkpoint-8") if isinstance(event, Saved) else event
        for event in events
        if event.step > 5
    ]
    assert_same_bits(weights(continued), weights(whole))
    states = [load_file(job.output_dir / "checkpoint-8" / "optimizer.safetensors") for job in (continued, whole)]
    assert_same_bits(*states)


def test_it_does_so_where_some_variables_never_get_a_gradient(new_job):
    architecture = shrink("xlnet")
    make_causal(architecture)
    model = Model(name_or_path=None, revision="main", architecture=architecture, seed=1)
    options = {"model": model, "max_steps": 3, "weight_decay": 0.1, "save_strategy": "steps", "save_steps": 2}
    whole = new_job(**options)
    expected = losses(run(whole))
    rest = new_job(**options, resume_from=whole.output_dir / "checkpoint-2")
    assert losses(run(rest)) == expected[2:]
    assert_same_bits(weights(rest), weights(whole))
    state = load_file(rest.output_dir / "checkpoint-3" / "optimizer.safetensors")
    assert {int(state["t.transformer.mask_emb"]), int(state["t.lm_loss.bias"])} == {0, 3}


def test_what_no_class_would_add_to_the_loss_is_refused_by_the_name_of_the_field(new_job, new_model):
    model = new_model()
    model.architecture.output_router_logits = True
    with pytest.raises(ModelError, match="output_router_logits True in the configuration adds to the loss"):
        run(new_job(model=model))


def test_dropout_differs_from_step_to_step_and_depends_on_the_seed(new_job, new_model):
    first, again, other = (
        losses(run(new_job(max_steps=2, model=new_model(dropout=0.5), seed=seed, learning_rate=1e-12)))
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_finished_training_can_be_continued_to_its_end(new_job, saved):
    again = new_job(max_steps=2, save_strategy="epoch", resume_from=saved.output_dir / "checkpoint-2")
    assert run(again) == []
    assert_same_bits(weights(again), weights(saved))


@pytest.mark.parametrize("damage", ["a name", "a shape", "the file"])
def test_a_damaged_checkpoint_is_refused(new_job, saved, damage, tmp_path):
    checkpoint = shutil.copytree(saved.output_dir / "checkpoint-2", tmp_path / "checkpoint-2")
    file = checkpoint / "optimizer.safetensors"
    state = load_file(file)
    moment = state.pop("m.transformer.wpe.weight")
    if damage == "a shape":
        state["m.transformer.wpe.weight"] = np.ascontiguousarray(moment.T)
    save_file(state, file)
    if damage == "the file":
        file.write_bytes(b"")
    with pytest.raises(ModelError, match=r"optimizer\.safetensors"):
        run(new_job(max_steps=2, resume_from=checkpoint))


def test_a_checkpoint_without_its_state_is_refused_by_the_name_of_the_file(new_job, saved, tmp_path):
    checkpoint = shutil.copytree(saved.output_dir / "checkpoint-2", tmp_path / "checkpoint-2")
    (checkpoint / "optimizer.safetensors").unlink()
    with pytest.raises(ModelError, match=r"checkpoint-2 lacks optimizer\.safetensors: use another checkpoint"):
        run(new_job(max_steps=2, resume_from=checkpoint))


def test_max_steps_ends_a_training_within_an_epoch(new_job):
    events = run(new_job(max_steps=3, gradient_accumulation_steps=2))
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3]


def test_bf16_computes_differently_and_keeps_float32_weights(new_job, plain):
    before = tf_keras.mixed_precision.global_policy().name
    rounded = new_job(max_steps=4, bf16=True)
    expected, found = losses(plain.report.__self__), losses(run(rounded))
    assert found != expected
    np.testing.assert_allclose(found, expected, atol=2e-2)
    # Rounded to bfloat16, a loss near 4 would be a multiple of 1/32.
    assert any(loss * 32 != round(loss * 32) for loss in found)
    assert all(array.dtype == np.float32 for array in weights(rounded).values())
    assert tf_keras.mixed_precision.global_policy().name == before


def test_norms_and_biases_decay_where_all_is_to(new_job):
    options = {"max_steps": 1, "weight_decay": 0.5, "learning_rate": 0.1}
    usual, every = new_job(**options), new_job(**options, own=TensorFlowOptions(decay_all=True))
    run(usual), run(every)
    name = "transformer.h.0.ln_1.weight"
    np.testing.assert_allclose(weights(usual)[name] - weights(every)[name], 0.1 * 0.5, atol=1e-6)
    np.testing.assert_array_equal(weights(usual)["transformer.wte.weight"], weights(every)["transformer.wte.weight"])


def test_xla_gives_the_same_losses(new_job, plain):
    compiled = new_job(max_steps=4, own=TensorFlowOptions(jit_compile=True))
    np.testing.assert_allclose(losses(run(compiled)), losses(plain.report.__self__), atol=1e-5)
