"""Names of other programs lead to what does the same here, or to the sentence that nothing does."""

import pytest

import clm_core as clm
from clm_core.config import COMMANDS
from clm_core.data.readers.files import READERS
from clm_core.data.readers.opening import UNPACKERS
from clm_core.errors import OptionError
from clm_core.options import list_options
from clm_core.options.hints import DATA, table
from clm_core.registry import list_backends

OPTIONS = {option.name for command in COMMANDS.values() if command.config for option in list_options(command.config)}
OF_BACKENDS = {option.name for it in list_backends() if it.backend for option in list_options(it.backend.options)}
NAMES = table()["options"]
WITH_OPTIONS = [name for name, command in COMMANDS.items() if command.config]


def test_a_file_of_each_format_is_known_for_one():
    assert set(DATA) == {*READERS, *UNPACKERS}


def test_no_name_of_the_table_is_an_option_or_a_command_here():
    assert NAMES.keys() & (OPTIONS | OF_BACKENDS | {"config", "backend", "json", "verbose"}) == set()
    assert table()["commands"].keys() & COMMANDS.keys() == set()


def test_what_the_table_leads_to_is_here():
    assert {use for entry in NAMES.values() if "use" in entry for use in entry["use"].split(" or ")} <= OPTIONS
    assert {command.split()[1] for command in table()["commands"].values()} <= {*COMMANDS, "--help", "--version"}
    assert all(entry.keys() in ({"use"}, {"say"}, {"say", "of"}) for entry in NAMES.values())
    assert {entry["of"] for entry in NAMES.values() if "of" in entry} <= OPTIONS
    assert table()["not_here"].keys() <= OPTIONS


def test_what_a_command_does_not_have_is_an_option_of_another_and_is_answered_with_the_reason(refused):
    for name, reasons in table()["not_here"].items():
        for reason in reasons:
            has = {command: {it.name for it in list_options(COMMANDS[command].config)} for command in WITH_OPTIONS}
            (command,) = (command for command, names in has.items() if reason["of"] in names)
            assert name not in has[command]
            assert reason["say"] in refused(command, "--" + name.replace("_", "-"), "2")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_of_the_table_is_answered(refused, name):
    entry = NAMES[name]
    wanted = [entry["say"]] if "say" in entry else ["--" + use.replace("_", "-") for use in entry["use"].split(" or ")]
    shown = refused("train", "--" + name.replace("_", "-"), "x")
    assert any(way in shown for way in wanted)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["trian", "--seed", "1"], "unknown command 'trian'; did you mean clm train?"),
        (["--config", "x"], "--config is given without a command: clm train --config ..., or with evaluate, generate"),
        (["--backend", "pt", "--max-steps=3"], "without a command: clm train --max-steps ..., or with parity\n"),
        (["--versoin"], "did you mean --version?"),
        (["trian"], "unknown command 'trian'; did you mean clm train?"),
        (["doctor"], "here it is `clm backends`"),
        (["help"], "here it is `clm --help`"),
        (["my data.csv"], "to train on a file: clm train --train-file 'my data.csv'"),
        (["zzz"], "the commands are train, evaluate, generate"),
        (["train", "--torch-compile"], "did you mean --pt-torch-compile?"),
        (["train", "--device-train-batch-size", "3"], "did you mean --per-device-train-batch-size or"),
        (["generate", "--lr", "1"], "--learning-rate is an option of clm train, clm parity"),
        (["parity", "--max-train-time", "8h"], "--max-train-time is an option of clm train"),
        (["generate", "--max-length", "9"], "here it is --max-new-tokens"),
        (["generate", "--text-column", "a"], "--text-column is an option of clm train, clm evaluate, clm prepare"),
        (["train", "--max_steps", "1"], "did you mean --max-steps?"),
        (["train", "--dry-run"], "to see the data without training, run `clm prepare`"),
        (["push", "run", "--dry-run"], "unknown option --dry-run; `clm push --help` shows those that exist\n"),
        (["train", "--xyzzy"], "unknown option --xyzzy; `clm train --help` shows those that exist\n"),
        (["--xyzzy"], "unknown option --xyzzy; `clm --help` shows those that exist\n"),
        (["train", "-9"], "unknown option -9; `clm train --help` shows those that exist\n"),
    ],
)
def test_commands_and_options_of_other_places_are_found(refused, argv, says):
    assert says in refused(*argv)


def test_keys_and_arguments_have_the_same_hints(train_refused, train, tmp_path):
    (tmp_path / "my.yaml").write_text("lr: 1\n")
    assert "unknown option lr (my.yaml, line 1); here it is learning_rate" in train_refused("--config", "my.yaml")
    with pytest.raises(OptionError, match=r"unknown option epochs \(argument epochs\); here it is num_train_epochs"):
        train(epochs=3)
    with pytest.raises(OptionError, match=r"did you mean torch_compile under pt\?"):
        clm.train(backend="bigram", torch_compile=True)
