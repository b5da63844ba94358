"""Options: declared once, read alike from a flag, a file and a call, and written so that they are read back."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from clm_core.config import EvaluateConfig, GenerateConfig, PrepareConfig, TrainConfig
from clm_core.errors import OptionError
from clm_core.options import Given, add_flags, build, from_arguments, from_file, from_flags, list_options, to_yaml

CONFIGS = [TrainConfig, EvaluateConfig, GenerateConfig, PrepareConfig]
EVERY = [
    pytest.param(cls, option, id=f"{cls.__name__}-{option.name}") for cls in CONFIGS for option in list_options(cls)
]


def made(cls=TrainConfig, **values):
    return build(cls, [from_arguments(values)])


def parsed(*argv, cls=TrainConfig):
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    add_flags(parser, cls)
    namespace = parser.parse_args([str(argument) for argument in argv])
    return build(cls, [from_flags(namespace, vars(namespace))])


@pytest.fixture
def read(tmp_path):
    def run(text, cls=TrainConfig):
        (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
        return build(cls, [from_file(tmp_path / "my.yaml")])

    return run


NARROW = {
    "max_train_time": "90m",
    "nproc_per_node": "2",
    "stop_on_loss_spike": 2.5,
    "csv_delimiter": "~",
    "encoding": "cp1252",
    "shard": "2/3",
    "hub_license": "cc-by-4.0",
    "lora_target_modules": ("q_proj", "h.0.attn"),
    "lora_modules_to_save": ("lm_head",),
}
"""A value of each option that takes no text but of one form."""


def another(option):
    """A value that the option takes and that is not its default."""
    if get_origin(option.kind) is Literal:
        values = {option.metadata["same"].get(value, value) for value in get_args(option.kind)}
        return max(values - {option.default})
    if option.name in NARROW:
        return NARROW[option.name]
    if get_origin(option.kind) is tuple:
        return ("a b.txt", "ünï.csv")
    if option.kind is str:
        return "some: text # 'quoted'"
    if option.kind is bool:
        return not option.default
    candidates = [0.25, 3.0] if option.kind is float else [3, 50]
    return next(value for value in candidates if value != option.default)


@pytest.mark.parametrize(("cls", "option"), EVERY)
def test_every_option_has_a_help_and_a_default_that_passes_its_own_check(cls, option):
    assert len(option.help) > 10
    assert option.group
    assert getattr(made(cls, **{option.name: option.default}), option.name) == option.default


@pytest.mark.parametrize(("cls", "option"), EVERY)
def test_every_option_has_a_flag(cls, option):
    value = another(option)
    texts = [f"--no{option.flag[1:]}" if value is False else option.flag]
    texts += [] if option.kind is bool else value if isinstance(value, tuple) else [str(value)]
    assert getattr(parsed(*texts, cls=cls), option.name) == value


@pytest.mark.parametrize(("cls", "option"), EVERY)
def test_every_option_is_written_to_a_file_and_read_back(cls, option, tmp_path, read):
    config = made(cls, **{option.name: another(option)})
    assert read(to_yaml(config, {}), cls) == config
    assert list(yaml.safe_load(to_yaml(config, {}))) == [option.name]


@pytest.mark.parametrize("cls", CONFIGS)
def test_defaults_are_not_written(cls):
    assert yaml.safe_load(to_yaml(cls(), {})) in ({}, None)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@example(text="a\x85\u2028b", files=["\u2029"], rate=1.0, seed=0, limit=None, strategy="no", flag=True)
@given(
    text=TEXT,
    files=st.lists(TEXT, max_size=3),
    rate=st.floats(0, 3.4e38, exclude_min=True),
    seed=st.integers(0, 2**32 - 1),
    limit=st.none() | st.integers(1),
    strategy=st.sampled_from(["no", "steps", "epoch"]),
    flag=st.booleans(),
)
def test_any_values_are_written_to_a_file_and_read_back(
    tmp_path_factory, text, files, rate, seed, limit, strategy, flag
):
    values = {"text_column": text, "train_file": files, "learning_rate": rate, "seed": seed}
    config = made(**values, save_total_limit=limit, eval_strategy=strategy, append_eos=flag)
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(to_yaml(config, {}), encoding="utf-8")
    assert build(TrainConfig, [from_file(path)]) == config


def test_the_options_of_a_backend_are_written_under_its_name(tmp_path):
    section = made(EvaluateConfig, bf16=True)
    (tmp_path / "my.yaml").write_text(to_yaml(TrainConfig(), {"pt": section, "tf": EvaluateConfig()}))
    assert {name: given.value for name, given in from_file(tmp_path / "my.yaml").items()} == {"pt.bf16": "true"}


def test_the_last_layer_wins():
    layers = [{"seed": Given("1", "a file"), "block_size": Given("64", "a file")}, {"seed": Given("2", "--seed")}]
    config = build(TrainConfig, layers)
    assert (config.seed, config.block_size, config.learning_rate) == (2, 64, 2e-5)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", "2e-5", 2e-5),
        ("learning_rate", "1", 1.0),
        ("block_size", "1e3", 1000),
        ("block_size", "1_000", 1000),
        ("block_size", " 64 ", 64),
        ("max_steps", "-1", -1),
        ("eval_strategy", "no", "no"),
        ("report_to", "none", "none"),
        ("bf16", "yes", True),
        ("bf16", "True", True),
        ("bf16", "off", False),
        ("save_total_limit", "none", None),
        ("save_total_limit", "null", None),
        ("save_total_limit", "~", None),
        ("output_dir", "", None),
        ("train_file", "a.txt", ("a.txt",)),
        ("train_file", "[a.txt, b.txt]", ("a.txt", "b.txt")),
        ("train_file", "[]", ()),
        ("text_column", "'null'", "null"),
        ("model_revision", "1.0", "1.0"),
        ("text_column", "no", "no"),
    ],
)
def test_the_type_of_the_option_decides_what_a_value_in_a_file_means(read, name, text, value):
    result = getattr(read(f"{name}: {text}\n"), name)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("block_size", np.int64(64), 64),
        ("block_size", 64.0, 64),
        ("learning_rate", np.float64(1e-3), 1e-3),
        ("learning_rate", 1, 1.0),
        ("bf16", np.bool_(True), True),
        ("bf16", 1, True),
        ("output_dir", Path("runs/a"), "runs/a"),
        ("train_file", Path("a.txt"), ("a.txt",)),
        ("train_file", [Path("a.txt"), "b.txt"], ("a.txt", "b.txt")),
        ("train_file", "a.txt", ("a.txt",)),
        ("max_eval_samples", None, None),
    ],
)
def test_what_python_code_has_at_hand_is_taken(name, given, value):
    result = getattr(made(**{name: given}), name)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("learning_rate", "nan", "a finite number above 0"),
        ("learning_rate", math.nan, "a finite number above 0"),
        ("learning_rate", "inf", "a finite number"),
        ("learning_rate", "0", "a finite number above 0"),
        ("learning_rate", "fast", "a finite number"),
        ("learning_rate", True, "a finite number"),
        ("learning_rate", None, "a finite number"),
        ("learning_rate", 10**400, "a finite number"),
        ("weight_decay", -0.1, "a finite number, 0 or above"),
        *((name, 3.5e38, "at most 3.40282e+38") for name in ("learning_rate", "weight_decay", "adam_epsilon")),
        ("block_size", "1", "at least 2"),
        ("block_size", "12.5", "a whole number"),
        ("block_size", "", "a whole number"),
        ("block_size", 10**400, "a whole number"),
        ("block_size", [1, 2], "a whole number"),
        ("per_device_train_batch_size", 0, "at least 1"),
        ("gradient_accumulation_steps", -3, "at least 1"),
        ("max_steps", 0, "above 0, or -1 for no limit"),
        ("num_train_epochs", -1, "a finite number above 0"),
        ("validation_split_percentage", 100, "at least 0 and at most 99"),
        ("warmup_ratio", 1, "at least 0 and less than 1"),
        ("seed", -1, "at least 0 and at most"),
        ("seed", 2**32, "at least 0 and at most"),
        ("eval_strategy", "sometimes", "one of no, steps, epoch"),
        ("eval_strategy", False, "one of no, steps, epoch"),
        ("bf16", "maybe", "true or false"),
        ("bf16", 2, "true or false"),
        ("bf16", None, "true or false"),
        ("text_column", "", "text"),
        ("text_column", 5, "text"),
        ("train_file", 5, "a list of texts"),
        ("train_file", [""], "a list of texts"),
        ("train_file", [5], "a list of texts"),
        ("train_file", "", "a list of texts"),
        ("max_train_samples", 0, "at least 1"),
    ],
)
def test_a_wrong_value_is_refused_with_what_it_must_be_and_where_it_stands(name, value, expected):
    with pytest.raises(OptionError) as error:
        made(**{name: value})
    assert str(error.value).startswith(f"{name} must be {expected}")
    assert str(error.value).endswith(f"not {value!r} (argument {name})")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "unknown option learning_rat .*line 1.*did you mean learning_rate?"),
        ("seed: 1\nlearning-rate: 1", "unknown option learning-rate .*line 2.*did you mean learning_rate?"),
        ("seed: 1\nblock_size: 8\nseed: 2", "line 3: seed is given twice"),
        ("- seed", "line 1: expected `option: value`"),
        ("just text", "line 1: expected `option: value`"),
        ("{a: b}: c", "line 1: expected `option: value`"),
        ("seed: [1, [2]]", "line 1: seed must be a value or a list of values, without nesting"),
        ("train_file:\n- a: b", "line 1: train_file must be a value or a list of values, without nesting"),
        ("pt: {a: {b: 1}}", "line 1: pt.a must be a value or a list of values, without nesting"),
        ("seed: 1\nbad: [", "line 2: not YAML"),
        ("seed: 1\n\tblock_size: 2", "line 2: not YAML"),
        ("seed: 1\n---\nseed: 2", "line 2: not YAML"),
        ("seed: \x00", "not YAML: .*character 7"),
        ("seed: many", "seed must be a whole number, not 'many' .*my.yaml, line 1"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(read, text, message):
    with pytest.raises(OptionError, match=message):
        read(text)


def test_a_file_that_is_not_utf8_or_not_there_is_refused(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("text_column: é".encode("latin-1"))
    for name in ("latin.yaml", "missing.yaml"):
        with pytest.raises(OptionError, match=f"cannot read configuration file .*{name}"):
            from_file(tmp_path / name)


@pytest.mark.parametrize("text", ["", "# nothing\n", "\ufeffseed: 42\n", "seed: 42\r\n", "---\nseed: 42\n"])
def test_empty_files_comments_and_marks_are_no_trouble(read, text):
    assert read(text) == TrainConfig()


def test_a_configuration_cannot_be_changed_by_accident():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().seed = 1


def test_options_of_one_name_are_the_same_for_every_verb():
    known = {}
    for cls in CONFIGS:
        for option in list_options(cls):
            if option.name not in {"output_dir", "seed", "dtype"}:  # Of the command that writes, draws or trains.
                assert known.setdefault(option.name, option) == option


def test_pairs_may_be_a_mapping_in_a_file_and_from_python(tmp_path):
    (tmp_path / "my.yaml").write_text("lr_scheduler_kwargs:\n  num_cycles: 3\n  power: 2\npt:\n  bf16: true\n")
    file, given = (
        from_file(tmp_path / "my.yaml"),
        from_arguments({"lr_scheduler_kwargs": {"num_cycles": 3, "power": 2}}),
    )
    assert file["lr_scheduler_kwargs"].value == given["lr_scheduler_kwargs"].value == "num_cycles=3,power=2"
    assert file["pt.bf16"].value == "true"


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_a_value_of_other_programs_is_refused_with_its_reason(name):
    with pytest.raises(OptionError, match=f"lr_scheduler_type {name}: it changes the learning rate by the losses"):
        build(TrainConfig, [from_arguments({"lr_scheduler_type": name})])


@pytest.mark.parametrize("name", ["lr_scheduler_kwargs", "config_overrides"])
@pytest.mark.parametrize("value", [["a"], 3, True])
def test_what_is_no_pairs_is_told_the_shape_of_pairs(name, value):
    with pytest.raises(OptionError, match=rf"^{name} must be KEY=VALUE,... as one text, or a mapping, not "):
        build(TrainConfig, [from_arguments({name: value})])
