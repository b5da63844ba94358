"""A checkpoint is whole or does not count, and a training goes on from it with the options of today."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from shrink import shrink

from clm_core import checkpoints
from clm_core.backend import Model, Saved, StepDone
from clm_core.errors import DiskFullError, ModelError
from clm_core.models.causality import make_causal
from clm_core.models.file_names import IN_FILES
from clm_pt import checkpoints as checkpoints_of_pt
from clm_pt.training import create_trainer, train

SAVING = {"save_strategy": "steps", "save_steps": 3}


def run(job):
    """Train, and return the events."""
    train(job)
    return job.report.__self__


def weights(job):
    return load_file(job.model_dir / "model.safetensors")


def assert_close(found, expected):
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor, expected[name], rtol=0, atol=2e-6, err_msg=name)


LONG = {"max_steps": 8, "weight_decay": 0.1, "adam_epsilon": 1e-4}
"""A training; GPT-2's bias of keys has no gradient but noise, which a smaller epsilon makes as large as any other."""


@pytest.fixture
def stopped(new_job):
    """A job that has run, and its checkpoint after three of eight steps."""
    job = new_job(**LONG, **SAVING)
    run(job)
    return job, job.output_dir / "checkpoint-3"


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_continued_training_equals_an_uninterrupted_one(new_job, new_model, accumulation):
    options = {"model": new_model(dropout=0.1), "max_steps": 8, "gradient_accumulation_steps": accumulation, **SAVING}
    whole = new_job(**options)
    events = run(whole)
    rest = new_job(**options, resume_from=whole.output_dir / "checkpoint-3")
    assert run(rest) == [
        replace(event, path=rest.output_dir / event.path.name) if isinstance(event, Saved) else event
        for event in events
        if event.step > 3
    ]
    assert all((weights(rest)[name] == tensor).all() for name, tensor in weights(whole).items())


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("xlnet", {}),  # Some parameters never get a gradient,
        ("opt", {"layerdrop": 0.5}),  # others at some steps only: those of a layer that is left out,
        ("mixtral", {"num_local_experts": 16, "num_experts_per_tok": 1}),  # or of an expert that no token is sent to.
        ("reformer", {"axial_pos_shape": (3, 4)}),  # Its class would draw its seeds from the machine.
        ("apertus", {}),  # Its activation has parameters in bfloat16.
        ("marian", {}),  # from_pretrained forgets that its positions are not trained.
    ],
)
def test_it_does_so_whichever_parameters_get_a_gradient(new_job, kind, changes):
    architecture = shrink(kind)
    architecture.update(changes)
    make_causal(architecture)
    model = Model(name_or_path=None, revision="main", architecture=architecture, seed=1)
    whole = new_job(model=model, max_steps=6, per_device_train_batch_size=1, weight_decay=0.1, **SAVING)
    events = run(whole)
    checkpoint = whole.output_dir / "checkpoint-3"
    rest = new_job(model=model, max_steps=6, per_device_train_batch_size=1, weight_decay=0.1, resume_from=checkpoint)
    assert run(rest) == [event for event in events if isinstance(event, StepDone) and event.step > 3]
    assert all((weights(rest)[name] == tensor).all() for name, tensor in weights(whole).items())


def test_a_training_goes_on_when_the_checkpoint_that_it_resumed_from_is_pruned(new_job):
    train(first := new_job(max_steps=1, save_strategy="steps", save_steps=1))
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    train(new_job(**options, output_dir=first.output_dir, resume_from=first.output_dir / "checkpoint-1"))
    assert [path.name for path in first.output_dir.glob("checkpoint-*")] == ["checkpoint-6"]


def test_a_checkpoint_of_an_earlier_clm_which_counted_no_updates_goes_on_as_before(new_job, stopped):
    file = stopped[1] / checkpoints.MOMENTS
    save_file({name: array for name, array in load_file(file).items() if not name.startswith("t.")}, file)
    job = new_job(**LONG, resume_from=stopped[1])
    run(job)
    assert all((weights(job)[name] == tensor).all() for name, tensor in weights(stopped[0]).items())


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 3e-2},
        {"weight_decay": 0.9},
        {"learning_rate": 2e-3, "weight_decay": 0.0, "adam_beta1": 0.5, "adam_beta2": 0.9, "adam_epsilon": 1e-3},
        {"max_steps": 14, "lr_scheduler_type": "cosine", "warmup_steps": 6},
    ],
)
def test_a_continued_training_uses_the_options_that_it_is_given(new_job, stopped, by_hand, changes):
    before, checkpoint = stopped
    job = new_job(**(LONG | changes), resume_from=checkpoint)
    run(job)
    assert_close(weights(job), by_hand((before, 3), (job, job.schedule.total_steps)))
    assert any((weights(job)[name] - tensor).abs().max() > 1e-4 for name, tensor in weights(before).items())


def test_a_checkpoint_without_its_state_is_refused_by_the_name_of_the_file(new_job, stopped):
    (stopped[1] / checkpoints.MOMENTS).unlink()
    with pytest.raises(ModelError, match=r"checkpoint-3 lacks optimizer\.safetensors: use another checkpoint"):
        train(new_job(max_steps=8, resume_from=stopped[1]))


@pytest.mark.parametrize("optim", ["adamw", "muon"])
def test_what_is_restored_is_where_the_parameters_are(new_job, optim):
    job = new_job(max_steps=3, optim=optim, **SAVING)
    run(job)
    trainer = create_trainer(job)
    model = trainer.model.to("meta")  # In place of a GPU, where AdamW cannot use what lies elsewhere.
    model.tie_weights()
    restored = trainer.create_optimizer()
    checkpoints_of_pt.restore(job.output_dir / "checkpoint-3", model, restored)
    parts = [(part, tensor) for state in restored.state.values() for part, tensor in state.items()]
    assert {tensor.device.type for part, tensor in parts if optim == "adamw" or part != "step"} == {"meta"}


def test_nothing_but_weights_and_moments_is_read_from_a_checkpoint(new_job, stopped):
    before, checkpoint = stopped
    for name in ("rng_state.pth", "scaler.pt", "scheduler.pt", "optimizer.pt", "training_args.bin"):
        (checkpoint / name).write_bytes(b"\x80\x04cos\nabort\n(tR.")  # A pickle that ends the process.
    (checkpoint / "trainer_state.json").write_text('{"global_step": 7, "max_steps": 1}')
    job = new_job(**LONG, resume_from=checkpoint)
    assert [event.step for event in run(job)] == [4, 5, 6, 7, 8]
    assert all((weights(job)[name] == tensor).all() for name, tensor in weights(before).items())


@pytest.mark.parametrize("file", ["optimizer.safetensors", "model.safetensors"])
def test_a_torn_file_is_refused(new_job, stopped, file):
    (stopped[1] / file).write_bytes((stopped[1] / file).read_bytes()[:100])
    with pytest.raises(ModelError, match="checkpoint-3"):
        train(new_job(max_steps=8, resume_from=stopped[1]))


def test_a_checkpoint_that_lacks_a_weight_is_refused_by_its_name(new_job, stopped):
    file = stopped[1] / "model.safetensors"
    tensors = load_file(file)
    del tensors["transformer.ln_f.bias"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"transformer\.ln_f\.bias"):
        train(new_job(max_steps=8, resume_from=stopped[1]))


def test_a_checkpoint_holds_the_weights_of_its_step(new_job, stopped, by_hand):
    short = new_job(**LONG)
    assert_close(load_file(stopped[1] / "model.safetensors"), by_hand((short, 3)))


def test_a_checkpoint_that_is_written_again_stays_the_one_before_until_it_is_whole(new_job, stopped, monkeypatch):
    def crash(*args, **kwargs):
        raise OSError("no space left on device")

    before = {path.name: path.read_bytes() for path in stopped[1].iterdir()}
    monkeypatch.setattr(checkpoints, "write_states", crash)
    job = new_job(max_steps=8, output_dir=stopped[0].output_dir, **SAVING)
    with pytest.raises(DiskFullError, match=r"the disk is full: .*checkpoint-3: free"):
        train(job)
    assert {path.name: path.read_bytes() for path in stopped[1].iterdir()} == before
    assert not [path.name for path in job.output_dir.iterdir() if path.name.startswith(".checkpoint-")]


def test_a_checkpoint_that_is_written_again_is_whole_again(new_job, stopped):
    job = new_job(max_steps=8, seed=9, output_dir=stopped[0].output_dir, **SAVING)
    run(job)
    assert [path.name for path in checkpoints.list_complete(job.output_dir)] == [f"checkpoint-{n}" for n in (3, 6, 8)]
    assert '"seed": 9' in (stopped[1] / checkpoints.MARKER).read_text()


def test_all_files_are_on_the_disk_before_the_marker(new_job, monkeypatch):
    synced = []
    monkeypatch.setattr(
        "clm_core.durable.sync_file",
        lambda file: synced.append((file.parent.name, file.name, (file.parent / checkpoints.MARKER).exists())),
    )
    job = new_job(max_steps=3, **SAVING)
    steps = [event.step for event in run(job) if isinstance(event, StepDone)]
    assert ({folder for folder, _, _ in synced}, steps) == ({"checkpoint-3"}, [1, 2, 3])
    assert {checkpoints.MOMENTS, "model.safetensors"} <= {file for _, file, _ in synced}
    assert not any(marked for _, _, marked in synced)


@pytest.mark.parametrize("kind", sorted(IN_FILES))
def test_moments_have_the_names_that_the_weights_have_in_files(new_job, kind):
    model = Model(name_or_path=None, revision="main", architecture=shrink(kind), seed=1)
    whole = new_job(model=model, max_steps=4, save_strategy="steps", save_steps=2)
    run(whole)
    folder = whole.output_dir / "checkpoint-2"
    names = {name[2:] for name in load_file(folder / checkpoints.MOMENTS) if name.startswith("t.")}
    assert names == load_file(folder / "model.safetensors").keys()
    rest = new_job(model=model, max_steps=4, resume_from=folder)
    run(rest)
    assert_close(weights(rest), weights(whole))
