"""Whether a run will fit on its disk is known before the training."""

import re
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import BloomConfig, GPT2Config

from clm_core.backend import Model
from clm_core.config import TrainConfig
from clm_core.errors import DiskFullError
from clm_core.models.parameter_count import count_parameters
from clm_core.runs import disk
from clm_core.schedule import Schedule

OF_GPT2 = {"n_layer": 2, "n_embd": 64, "n_head": 4, "n_positions": 32, "vocab_size": 1000}
PARAMETERS = 1000 * 64 + 32 * 64 + 2 * 12 * 64 * 64
MODEL, CHECKPOINT, LAYERS = 4 * PARAMETERS, 12 * PARAMETERS, 4 * 2 * 12 * 64 * 64


def new(architecture=None):
    return Model(name_or_path=None, revision="main", architecture=architecture or GPT2Config(**OF_GPT2), seed=1)


@pytest.fixture
def needed(monkeypatch, tmp_path):
    """The bytes that must be free for a training, as `check_room` has it."""

    def find(model=None, *, steps=4, every=1, resume_from=None, first_step=0, free=0, **options):
        config = TrainConfig(
            **{"output_dir": str(tmp_path / "run"), "max_steps": steps, "save_strategy": "steps", "save_steps": every}
            | options
        )
        schedule = Schedule.from_config(config, blocks=64)
        monkeypatch.setattr(disk, "free_at", lambda folder: free)
        given = {"resume_from": resume_from, "first_step": first_step, "is_transformer": True}
        disk.check_room(config, schedule, model or new(), **given)

    def smallest(*given, **options):
        low, high = -1, 1 << 40
        while high - low > 1:
            middle = (low + high) // 2
            try:
                find(*given, free=middle, **options)
                high = middle
            except DiskFullError:
                low = middle
        return high

    smallest.check = find
    return smallest


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"save_total_limit": 2}, 3 * CHECKPOINT),
        ({"save_total_limit": 1}, 2 * CHECKPOINT),
        ({"save_total_limit": None}, 4 * CHECKPOINT + MODEL),
        ({"save_total_limit": 2, "every": 3}, 2 * CHECKPOINT + MODEL),
        ({"save_total_limit": 9, "every": 4}, CHECKPOINT + MODEL),
        ({"save_strategy": "no"}, MODEL),
        ({"save_total_limit": 1, "load_best_model_at_end": True, "eval_strategy": "steps"}, 3 * CHECKPOINT),
        ({"save_strategy": "no", "load_best_model_at_end": True}, CHECKPOINT + MODEL),
        ({"check_disk": False}, 0),
        ({"optim": "adafactor", "save_total_limit": 1}, 2 * MODEL),
        ({"optim": "muon", "save_total_limit": 1}, 2 * (CHECKPOINT - LAYERS)),
    ],
)
def test_it_needs_the_checkpoints_that_it_keeps_one_more_and_the_model(needed, options, expected):
    assert needed(**options) == expected


def checkpoint(run, step, size):
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(bytes(size - 2))
    return folder


@pytest.mark.parametrize(
    ("there", "limit", "expected"),
    [([10], 2, 200), ([10, 20], 2, 100), ([10, 20, 30], 2, 100), ([10], None, 400 + 98)],
)
def test_a_resumed_run_needs_what_it_has_not_got_yet(needed, tmp_path, there, limit, expected):
    newest = [checkpoint(tmp_path / "run", step, 100) for step in there][-1]
    step = there[-1]
    steps = {"steps": step + 4, "resume_from": newest, "first_step": step, "save_total_limit": limit}
    assert needed(**steps) == expected


def test_what_is_overwritten_counts_as_free(needed, tmp_path):
    checkpoint(tmp_path / "run", 10, CHECKPOINT)
    assert needed(overwrite_output_dir=True, save_total_limit=1) == CHECKPOINT


def test_the_error_has_the_numbers_and_the_ways_out(needed):
    with pytest.raises(DiskFullError) as caught:
        needed.check(free=5_000_000)
    assert re.search(
        r"run: this training needs about 5\.92 MB, for checkpoints of 1\.97 MB, of which it keeps 2 while it writes "
        r"another, and the model of 657 kB, but 5 MB are free on the disk: lower --save-total-limit 2, .*--output-dir, "
        r"or .* with --no-check-disk$",
        str(caught.value),
    )


def test_nothing_is_said_where_the_parameters_cannot_be_counted(needed, tmp_path):
    assert needed(new(type("Config", (), {"model_type": "unheard_of", "hidden_size": 4}))) == 0
    assert needed(Model(name_or_path=str(tmp_path), revision="main", architecture=GPT2Config(), seed=1)) == 0


def test_the_parameters_of_a_model_on_disk_are_those_of_its_files(tmp_path):
    save_file({"a": np.zeros((3, 4), np.float16), "b": np.zeros(5, np.float32)}, tmp_path / "model.safetensors")
    assert count_parameters(Model(name_or_path=str(tmp_path), revision="main", architecture=None, seed=1)) == 17


def test_the_parameters_of_a_new_model_are_those_of_its_matrices():
    assert count_parameters(new()) == PARAMETERS
    bloom = BloomConfig(hidden_size=64, n_layer=2, n_head=8, vocab_size=1000)
    assert count_parameters(new(bloom)) == 1000 * 64 + 2 * 12 * 64 * 64


def test_only_what_is_trained_has_moments(needed, tmp_path):
    shapes = {"wte.weight": (1000, 64), "h.0.mlp.weight": (64, 64), "h.1.mlp.weight": (64, 64), "ln_f.bias": (64,)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "model.safetensors")
    model = replace(new(), name_or_path=str(tmp_path))
    whole = needed(model, save_total_limit=None)
    layers, table = 2 * 64 * 64, 1000 * 64
    assert needed(model, save_total_limit=None, freeze=("embeddings",)) == whole - 4 * 8 * table
    assert needed(model, save_total_limit=None, freeze=("layers:0-1",)) == whole - 4 * 8 * layers
    assert needed(save_total_limit=1, train_only=("wte",)) == 2 * MODEL
