"""An optimizer by its name: the values of the option, which update a parameter gets, what a checkpoint keeps of it."""

from typing import ClassVar

import numpy as np
import pytest
from clm_bigram import BigramBackend
from safetensors import safe_open

from clm_core import checkpoints
from clm_core.checkpoints import State
from clm_core.errors import ModelError, OptionError
from clm_core.models.matrices import is_matrix_of_layer
from clm_core.optimizer import rule_of
from clm_core.options import from_arguments
from clm_core.options.resolve import training

SHAPES = {"h.0.mlp.weight": (3, 4), "h.0.mlp.bias": (4,), "wte.weight": (5, 3)}


class Particular(BigramBackend):
    """A backend with AdamW alone."""

    unsupported: ClassVar = {"optim=muon": "it is not written yet"}


def states(optim):
    parts = {name: rule_of(optim, name, shape).state(shape) for name, shape in SHAPES.items()}
    random = np.random.default_rng(1)
    return {
        name: State({part: random.normal(size=size).astype(np.float32) for part, size in kept.items()}, 7)
        for name, kept in parts.items()
    }


def test_a_backend_may_lack_one_value_of_an_option():
    with pytest.raises(
        OptionError, match=r"backend bigram does not support optim muon: it is not .* \(argument optim\)"
    ):
        training(from_arguments({"optim": "muon"}), file=None, backend=Particular())
    assert training(from_arguments({"optim": "adafactor"}), file=None, backend=Particular()).config.optim == "adafactor"


def test_adamw_has_two_names_and_a_run_has_one():
    assert training(from_arguments({"optim": "adamw"}), file=None, backend=Particular()).config.optim == "adamw_torch"


def test_an_optimizer_that_there_is_not_is_refused_with_those_that_there_are():
    with pytest.raises(
        OptionError, match=r"optim must be one of adamw_torch, adamw, adafactor, muon, not 'lion' \(arg"
    ):
        training(from_arguments({"optim": "lion"}), file=None, backend=Particular())


@pytest.mark.parametrize(
    ("name", "dimensions", "expected"),
    [
        ("transformer.h.0.attn.c_attn.weight", 2, True),
        ("h.11.mlp.c_fc.weight", 2, True),
        ("model.layers.3.mlp.experts.7.down_proj.weight", 2, True),
        ("roberta_prelayernorm.encoder.layer.0.output.dense.weight", 2, True),
        ("transformer.wte.weight", 2, False),
        ("lm_head.weight", 2, False),
        ("lm_heads.0.weight", 2, False),
        ("decoder.embed_tokens.0.weight", 2, False),
        ("model.layers.0.self_attn.q_norm.weight", 2, False),
        ("model.layers.0.mamba.A_log", 2, False),
        ("transformer.h.0.ln_1.weight", 1, False),
        ("model.layers.0.mlp.experts.gate_up_proj", 3, False),
    ],
)
def test_the_matrices_of_layers_are_known_by_their_names(name, dimensions, expected):
    assert is_matrix_of_layer(name, dimensions) == expected


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "muon"])
def test_what_an_optimizer_keeps_comes_back(optim, tmp_path):
    written = {**states(optim), "h.1.mlp.weight": None}
    checkpoints.write_states(tmp_path, written, optim=optim)
    found = checkpoints.read_states(tmp_path, {**SHAPES, "h.1.mlp.weight": (2, 2)}, optim=optim)
    assert found.pop("h.1.mlp.weight") is None
    for name, state in found.items():
        assert (state.updates, state.parts.keys()) == (7, written[name].parts.keys())
        for part, array in state.parts.items():
            np.testing.assert_array_equal(array, written[name].parts[part])


@pytest.mark.parametrize(("optim", "other"), [("adafactor", "muon"), ("muon", "adamw_torch"), ("adamw", "adafactor")])
def test_the_state_of_another_optimizer_is_refused_by_its_name(optim, other, tmp_path):
    checkpoints.write_states(tmp_path, states(optim), optim=optim)
    with pytest.raises(ModelError, match=rf"has the state of optimizer {optim}(_torch)?, and {other} cannot resume"):
        checkpoints.read_states(tmp_path, SHAPES, optim=other)


def test_the_file_of_adamw_is_as_it_was_before_there_were_others(tmp_path):
    checkpoints.write_states(tmp_path, states("adamw"), optim="adamw")
    with safe_open(tmp_path / checkpoints.MOMENTS, "numpy") as file:
        assert file.metadata() is None
        assert sorted(file.keys()) == sorted(f"{part}.{name}" for part in "mtv" for name in SHAPES)


def test_a_part_of_another_shape_is_refused_by_its_name(tmp_path):
    checkpoints.write_states(tmp_path, states("adafactor"), optim="adafactor")
    with pytest.raises(ModelError, match=r"row\.h\.0\.mlp\.weight has shape \(3,\), but the model needs \(4,\)"):
        checkpoints.read_states(tmp_path, {**SHAPES, "h.0.mlp.weight": (4, 4)}, optim="adafactor")
