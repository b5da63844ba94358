"""Backends by name: found, checked for what they need, and chosen, however broken the others are."""

import pytest
from clm_bigram import BigramBackend

from clm_core import cli, get_backend, list_backends
from clm_core.errors import BackendError
from clm_core.registry import backends_with, command_with


class Absent(BigramBackend):
    name = "absent"
    install = "pip install clm-absent"
    requires = ("a-framework-that-is-nowhere>=2",)


class Outdated(BigramBackend):
    name = "outdated"
    install = "pip install -U clm-outdated"
    requires = ("numpy>=1", "pytest>=999")


class Second(BigramBackend):
    name = "second"


class Fourth(BigramBackend):
    name = "fourth"

    def has_model(self, model_type):
        return model_type == "llama"


class Third(BigramBackend):
    name = "third"
    requires = ("pytest>=1",)
    models = "one type of models"

    def has_model(self, model_type):
        return model_type == "gpt2"


def broken(error):
    def load():
        raise error

    return load


def test_the_only_backend_that_can_run_is_taken(installed):
    installed(absent=Absent, bigram=BigramBackend)
    assert get_backend().name == "bigram"


def test_with_several_one_has_to_be_chosen_by_name_or_variable(installed, monkeypatch):
    installed(third=Third, bigram=BigramBackend, second=Second)
    with pytest.raises(BackendError, match="choose one of bigram, second, third with --backend, or in CLM_BACKEND"):
        get_backend()
    assert get_backend("second").name == "second"
    monkeypatch.setenv("CLM_BACKEND", "bigram")
    assert get_backend().name == "bigram"
    assert get_backend("second").name == "second"


def test_a_command_to_run_next_names_a_backend_where_there_are_several(installed, monkeypatch):
    installed(bigram=BigramBackend, absent=Absent)
    assert command_with() == "clm"
    installed(bigram=BigramBackend, second=Second)
    assert command_with() == "clm --backend bigram"
    assert command_with("second") == "clm --backend second"
    monkeypatch.setenv("CLM_BACKEND", "second")
    assert command_with() == "clm"


def test_with_none_that_can_run_the_ways_to_get_one_are_told(installed):
    installed(absent=Absent, outdated=Outdated)
    with pytest.raises(BackendError, match="pip install clm-absent or pip install -U clm-outdated"):
        get_backend()
    installed()
    with pytest.raises(BackendError, match="none is installed"):
        get_backend()


def test_a_backend_for_other_versions_names_those_that_can_use_the_version_that_is_here(installed):
    installed(outdated=Outdated, third=Third, second=Second)
    with pytest.raises(BackendError, match=r"clm-outdated; --backend third can use pytest [0-9.]+$"):
        get_backend("outdated")


def test_a_backend_without_a_model_of_a_type_says_which_one_has_it(installed, refused, corpus):
    installed(bigram=BigramBackend, third=Third, fourth=Fourth)
    small = ["--train-file", corpus, "--tokenizer-name", "sample", "--block-size", "16", "--output-dir", "output"]
    for model_type, instead in {"gpt2": "--backend third has one", "opt": "another backend may have one"}.items():
        said = refused("--backend", "fourth", "train", *small, "--model-type", model_type)
        assert f"model type {model_type}: backend fourth has no model for it; {instead}" in said


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("absent", r"needs a-framework-that-is-nowhere>=2 \(not installed\): pip install clm-absent"),
        ("outdated", r"needs pytest>=999 \(here: [0-9.]+\): pip install -U clm-outdated"),
    ],
)
def test_a_backend_without_its_framework_says_what_is_missing_and_how_to_get_it(installed, name, problem):
    installed(absent=Absent, outdated=Outdated)
    with pytest.raises(BackendError, match=f"backend {name} cannot run here: it {problem}"):
        get_backend(name)


def test_an_unknown_name_is_answered_with_the_near_ones_and_those_that_are_there(installed):
    installed(bigram=BigramBackend, absent=Absent)
    with pytest.raises(BackendError, match=r"'bigrams': did you mean bigram.*\? installed: bigram; not ready: absent"):
        get_backend("bigrams")


@pytest.mark.parametrize("error", [ImportError("no x"), SyntaxError("bad"), ValueError("odd"), AttributeError("no y")])
def test_a_broken_backend_keeps_nobody_from_using_the_others(installed, error, capsys):
    installed(bigram=BigramBackend, broken=broken(error))
    assert get_backend().name == "bigram"
    with pytest.raises(BackendError, match=f"stranger:broken of stranger does not load: {type(error).__name__}"):
        get_backend("broken")
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    assert "--learning-rate" in capsys.readouterr().out


def test_the_list_has_every_backend_by_name_with_its_problem_after_those_that_come_first(installed):
    installed(second=Second, absent=Absent, bigram=BigramBackend, third=type("First", (Third,), {"comes_first": True}))
    assert [(status.name, status.problem is None) for status in list_backends()] == [
        ("third", True),
        ("absent", False),
        ("bigram", True),
        ("second", True),
    ]


def test_the_command_shows_the_models_and_the_devices_of_each_and_whether_it_can_run(installed, capsys):
    installed(third=Third, absent=Absent)
    assert cli.main(["backends"]) == 0
    absent, third = capsys.readouterr().out.splitlines()
    assert third.split() == ["third", *Third.models.split(), "one", "device", "ready"]
    assert absent.index("it needs") == third.index("ready")


@pytest.mark.parametrize(
    ("model_type", "names"),
    [
        ("gpt2", ["pt", "tf", "keras"]),
        ("qwen3", ["pt", "keras"]),
        ("bert", ["pt", "tf"]),
        ("mamba", ["pt"]),
        ("nonsense", []),
    ],
)
def test_the_backends_of_clm_say_which_models_they_have(model_type, names):
    assert backends_with(model_type) == names


def test_the_toy_backend_and_the_three_of_clm_are_found():
    assert {"bigram", "keras", "pt", "tf"} <= {status.name for status in list_backends()}
