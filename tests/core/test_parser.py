"""Flags that get no value, too many, or one with a minus are named with what they were given."""

import pytest

from clm_core.config import TrainConfig
from clm_core.options.declared import list_options


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--learning-rate", "-1"], "learning_rate must be a finite number above 0, not '-1' (--learning-rate)"),
        (["--learning-rate", "-1e-4"], "learning_rate must be a finite number above 0, not '-1e-4'"),
        (["--weight-decay", "-INF"], "weight_decay must be a finite number, not '-INF'"),
        (["--max-grad-norm", "-1"], "max_grad_norm must be a finite number above 0, or 0 for no limit, not '-1'"),
        (["--weight-decay", "-x"], "--weight-decay needs a value, and -x is read as an option"),
        (["--freeze", "-x"], "-x is read as an option: if it is the value, give --freeze=-x"),
        (["--freeze", "wte", "-x"], "unknown option -x"),
        (["--seed", "--max-steps", "3"], "--seed needs a value, and is followed by --max-steps"),
        (["--seed"], "--seed needs a value"),
        (["--bf16=yes"], "--bf16 or --no-bf16 takes no value, and was given 'yes'"),
    ],
)
def test_a_flag_is_named_with_what_it_was_given(refused, argv, says):
    assert says in refused("--backend", "bigram", "train", *argv)


NUMBERS = [option for option in list_options(TrainConfig) if option.kind in (int, float)]


@pytest.mark.parametrize("option", NUMBERS, ids=[option.name for option in NUMBERS])
def test_a_negative_value_reaches_the_check_of_every_number(refused, option):
    said = refused("--backend", "bigram", "train", option.flag, "-3.5e0x")
    assert f"{option.name} must be " in said
    assert f"not '-3.5e0x' ({option.flag})" in said


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--config", "sample", "train"], "--config stands before the command: the order is clm train --config"),
        (["--train-file=a.txt", "train"], "--train-file stands before the command: the order is clm train"),
        (["verify", "here", "--config", "sample"], "--config: verify reads no configuration file: leave it out"),
        (["backends", "--config=x.yaml"], "--config: backends reads no configuration file"),
        (["train", "--confg", "x.yaml"], "did you mean --config?"),
    ],
)
def test_a_flag_in_another_place_is_led_to_its_own(refused, argv, says):
    assert says in refused(*argv)
