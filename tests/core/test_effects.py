"""Nothing that a person gives is dropped: it has an effect, or is refused by its name."""

import pytest
from support.able import Able

import clm_core as clm
from clm_core import cli
from clm_core.config import COMMANDS, GenerateConfig, ParityConfig, TrainConfig
from clm_core.errors import OptionError
from clm_core.options import from_arguments, list_options
from clm_core.options.effects import RULES
from clm_core.options.resolve import training

TWICE = {bool: ("", ""), int: ("1", "2"), float: ("0.1", "0.2")}


def single_valued(config):
    """The options that take one value, each with two ways to give it."""
    for option in list_options(config):
        if option.kind is bool:
            yield option.flag, [option.flag], ["--no-" + option.flag[2:]]
        elif option.kind in (int, float, str) or option.metavar.startswith("{"):
            one, other = TWICE.get(option.kind, ("a", "b"))
            yield option.flag, [option.flag, one], [option.flag, other]


@pytest.mark.parametrize(
    ("command", "ways"),
    [
        (command, ways)
        for command, config in (("train", TrainConfig), ("generate", GenerateConfig), ("parity", ParityConfig))
        for ways in single_valued(config)
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_an_option_of_one_value_that_is_given_two_is_refused(refused, command, ways):
    _, one, other = ways
    assert f"{' '.join(one)} and {' '.join(other)} cannot be combined: give one of them" in refused(
        command, *one, *other
    )


@pytest.mark.parametrize(
    "argv",
    [
        ["--backend", "bigram", "train", "--backend", "pt"],
        ["train", "--config", "a.yaml", "--config", "b.yaml"],
        ["train", "--pt-torch-compile", "--no-pt-torch-compile"],
        ["parity", "--python-pt", "a", "--python-pt=b"],
        ["prepare", "-o", "a", "--output-dir", "b"],
    ],
)
def test_so_are_the_other_flags_of_a_command(refused, argv):
    assert "cannot be combined: give one of them" in refused(*argv)


def test_the_same_value_twice_drops_nothing_and_lists_add_up(train, refused, corpus):
    data = ["--train-file", str(corpus), "--train-file", str(corpus), "--tokenizer-name", "sample"]
    assert cli.main(["prepare", *data, "--block-size", "16", "--block-size", "16"]) == 0


def test_a_section_that_stands_twice_in_a_file_is_read_whole_or_refused(train_refused, tmp_path):
    (tmp_path / "my.yaml").write_text("pt:\n  torch_compile: yes\npt:\n  torch_compile: no\n")
    assert "my.yaml, line 4: pt.torch_compile is given twice" in train_refused("--config", "my.yaml")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--eval-steps", "5"], "eval_steps 5 has no effect with eval_strategy epoch: give --eval-strategy steps"),
        (["--save-steps", "500"], "save_steps 500 has no effect with save_strategy epoch"),
        (
            ["--save-strategy", "no", "--save-total-limit", "3"],
            "save_total_limit 3 has no effect with save_strategy no",
        ),
        (["--eval-strategy", "no", "--per-device-eval-batch-size", "2"], "has no effect with eval_strategy no"),
        (["--validation-split-percentage", "0", "--eval-strategy", "epoch"], "and no --validation-file"),
        (["--validation-split-percentage", "0", "--max-eval-samples", "3"], "and no --validation-file"),
        (["--validation-file", "v.txt", "--validation-split-percentage", "5"], "has no effect with validation_file"),
        (["--model-revision", "v1"], "has no effect without model_name_or_path (--model-revision)"),
        (["--hub-offline"], "has no effect without push_to_hub"),
        (["--hub-strategy", "every_save"], "has no effect without push_to_hub"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(train_refused, argv, says):
    assert says in train_refused(*argv)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["generate", "--model-name-or-path", "x", "--top-k", "50", "a"], "top_k 50 has no effect without sampling"),
        (["generate", "--model-name-or-path", "x", "--seed", "1", "a"], "seed 1 has no effect without sampling"),
        (["evaluate", "--model-name-or-path", ".", "--model-revision", "v1"], "., which is a local folder"),
        (["train", "--overwrite-output-dir"], "overwrite_output_dir yes has no effect without output_dir"),
        (["parity", "--num-train-epochs", "2"], "has no effect with max_steps 10: give --max-steps -1"),
        (
            ["inspect", "x", "--block", "none", "--split", "validation"],
            "split validation has no effect with block none",
        ),
        (["inspect", "x", "--backend", "bigram"], "--backend bigram: inspect takes no backend"),
    ],
)
def test_so_it_is_by_the_other_commands(refused, argv, says):
    backend = [] if argv[0] in ("inspect", "parity") else ["--backend", "bigram"]
    assert says in refused(*backend, *argv)


def test_a_python_argument_is_refused_as_a_flag_is(train):
    with pytest.raises(OptionError, match=r"eval_steps 5 has no effect .*\(argument eval_steps\)"):
        train(eval_steps=5)


def test_what_a_file_says_in_vain_is_let_be(train, tmp_path):
    (tmp_path / "my.yaml").write_text("eval_steps: 5\nsave_steps: 7\nhub_strategy: every_save\nmodel_revision: v1\n")
    run = train(config="my.yaml", output_dir="run")
    assert clm.train(backend="bigram", resume_from_checkpoint=run.output_dir, num_train_epochs=2).steps > run.steps


def test_every_rule_is_for_an_option_that_the_verb_has():
    for config, rules in RULES.items():
        assert rules.keys() <= {option.name for option in list_options(config)}


def test_the_summary_names_checkpoints_only_where_there_are_some(corpus, capsys):
    small = ["--train-file", str(corpus), "--tokenizer-name", "sample", "--model-type", "gpt2", "--block-size", "16"]
    train = ["--backend", "bigram", "train", *small, "--max-steps", "4"]
    assert cli.main([*train, "--output-dir", "a", "--save-strategy", "no", "--hub-model-id", "jane/a"]) == 0
    without = capsys.readouterr().out
    assert "written     a: model, tokenizer, run.yaml, results.json, history.jsonl\n" in without
    assert "to publish  clm push a" in without
    assert cli.main([*train, "--output-dir", "b", "--save-strategy", "steps", "--save-steps", "2"]) == 0
    assert "history.jsonl, 2 checkpoints\n" in capsys.readouterr().out


def test_a_preparation_does_not_fail_for_a_block_size_and_says_which_works(corpus, capfd):
    data = ["--train-file", str(corpus), "--tokenizer-name", "sample", "-o", "data"]
    assert cli.main(["prepare", *data, "--block-size", "100000"]) == 0
    shown = capfd.readouterr()
    largest = shown.out.splitlines()[-1].split()[-1]
    assert f"the largest --block-size that works is {largest}" in shown.err
    assert shown.out.splitlines()[-1].endswith(f"--tokenizer-name sample --block-size {largest}")


def test_where_prepared_data_are_to_be_published_is_kept_with_them(corpus, capsys):
    names = ["--hub-dataset-id", "jane/data", "--hub-private-repo"]
    prepare = ["prepare", "--train-file", str(corpus), "--tokenizer-name", "sample", "-o", "data", *names]
    for _ in range(2):
        assert cli.main(prepare) == 0
        assert capsys.readouterr().out.splitlines()[-1].strip() == "clm push data"


@pytest.mark.parametrize("name", ["adam_beta1", "adam_beta2", "adam_epsilon"])
def test_a_setting_of_adamw_is_refused_with_an_optimizer_that_has_none_of_it(name):
    given = from_arguments({"optim": "adafactor", name: 0.5})
    with pytest.raises(OptionError, match=f"^{name} 0.5 has no effect with optim adafactor: it is AdamW's"):
        training(given, file=None, backend=Able())
    assert training({**given, **from_arguments({"optim": "muon"})}, file=None, backend=Able())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_a_backend_where_it_means_something(capsys, refused, command):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    is_shown = "--backend NAME" in capsys.readouterr().out
    assert is_shown == COMMANDS[command].with_backend
    if not is_shown:
        needed = ["x"] if COMMANDS[command].argument else []
        assert f"--backend bigram: {command} " in refused(command, *needed, "--backend", "bigram")
