"""`freeze` and `train_only` name the parts of a model: what they mean, and what is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_core.commands.first_look import look
from clm_core.config import TrainConfig
from clm_core.errors import OptionError
from clm_core.models.parts import trained
from clm_core.testing.tiny import shapes, tiny_gpt2

NAMES = sorted(shapes(tiny_gpt2(n_layer=12)))
TABLE = ["transformer.wte.weight"]
XLM = [f"transformer.{part}.{i}.weight" for part in ("attentions", "ffns", "layer_norm1") for i in range(3)]
EXPERTS = [f"model.layers.{i}.experts.{j}.up.weight" for i in range(2) for j in range(8)] + ["lm_head.weight"]


def left(names=NAMES, embeddings=TABLE, **options):
    return trained(names, TrainConfig(**options), embeddings=embeddings)


def layers(found):
    return {int(number[1]) for name in found if (number := re.search(r"\.h\.(\d+)\.", name))}


def test_without_either_all_is_trained():
    assert left() == set(NAMES)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("transformer.wte.weight", 1),
        ("transformer.wte", 1),
        ("wte", 1),
        ("embeddings", 1),
        ("w?e", 2),
        ("h.1", 12),
        ("h.1?", 24),
        ("h.[0-3].mlp", 16),
        ("*.attn.*.bias", 24),
        ("bias", 73),
        ("ln_*", 50),
        ("*", 148),
        ("transformer.h.*.ln_1", 24),
    ],
)
def test_a_pattern_is_a_name_or_a_part_of_it_between_dots(pattern, count):
    assert len(left(train_only=(pattern,))) == count


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("layers:0-5", range(6)),
        ("layers:3", [3]),
        ("layers:-1", [11]),
        ("layers:-2--1", [10, 11]),
        ("layers:10--1", [10, 11]),
    ],
)
def test_layers_have_numbers_from_either_end(pattern, numbers):
    found = left(train_only=(pattern,))
    assert (layers(found), len(found)) == (set(numbers), 12 * len(numbers))
    assert left(freeze=(pattern,)) == set(NAMES) - found


def test_a_layer_may_be_in_several_lists_and_have_lists_of_its_own():
    assert left(XLM, [], train_only=("layers:-1",)) == {name for name in XLM if ".2." in name}
    assert left(EXPERTS, [], freeze=("layers:0",)) == {*EXPERTS[8:]}


@given(st.lists(st.sampled_from(["wte", "layers:2-4", "layers:4-6", "mlp", "embeddings", "bias"]), min_size=1))
def test_patterns_add_up_and_both_options_are_each_others_rest(patterns):
    chosen = left(train_only=tuple(patterns))
    assert chosen == set().union(*(left(train_only=(pattern,)) for pattern in patterns))
    assert left(freeze=tuple(patterns)) == set(NAMES) - chosen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ("wtee",)}, "freeze wtee: the model has no such parameter; did you mean wte"),
        ({"train_only": ("wte", "h.12")}, "train_only h.12: the model has no such parameter"),
        ({"freeze": ("transformer.h.0.atn",)}, "did you mean transformer.h.0.attn"),
        ({"freeze": ("nothing",)}, "no such parameter; there are embeddings, layers:0-11, transformer, "),
        ({"freeze": ("layers",)}, "no such parameter; did you mean layers:0-11"),
        ({"train_only": ("h.*.ml",)}, "no such parameter; did you mean .*mlp"),
        ({"freeze": ("lm_head",)}, "the output layer is the token embeddings, which `embeddings` means"),
        ({"freeze": ("wte,wpe",)}, "several are given with spaces: wte wpe"),
        ({"freeze": ("layers:12",)}, "freeze layers:12: the model has 12 layers, 0 to 11"),
        ({"train_only": ("layers:-13",)}, "the model has 12 layers, 0 to 11"),
        ({"freeze": ("layers:5-0",)}, "layer 5 comes after layer 0"),
        ({"freeze": ("*",)}, r"freeze \*: nothing is left to train"),
        ({"freeze": ("layers:0--1", "embeddings", "wpe", "ln_f")}, "embeddings wpe ln_f: nothing is left to train"),
    ],
)
def test_what_is_not_there_is_refused_by_its_name(options, message):
    with pytest.raises(OptionError, match=message):
        left(**options)


@pytest.mark.parametrize("part", ["layers:", "layers:a", "layers:0-", "layers:0,1", "layers:1.5", " "])
def test_what_is_no_pattern_is_refused_before_anything_is_read(part, train_refused):
    assert "freeze must be names of parts; layers are `layers:3`" in train_refused("--freeze", part)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ("wte",), "train_only": ("wpe",)}, "freeze and train_only cannot be combined: give one of them"),
        (
            {"freeze": ("wte",), "lora_r": 4},
            "freeze and lora_r cannot be combined: with lora_r, only",
        ),
        ({"embedding_learning_rate": 1e-3, "lora_r": 4}, "embedding_learning_rate and lora_r cannot be combined"),
    ],
)
def test_options_that_choose_otherwise_cannot_be_given_together(options, message):
    with pytest.raises(OptionError, match=message):
        look(TrainConfig(model_type="gpt2", text_column="answers.text", **options))


def test_a_rate_of_embeddings_that_are_not_trained_is_refused():
    assert left(freeze=("layers:0",), embedding_learning_rate=1e-3)
    with pytest.raises(OptionError, match="has no effect: freeze leaves the embeddings"):
        left(freeze=("embeddings",), embedding_learning_rate=1e-3)
