"""Names of a package are imported when they are used, quietly, and can be listed before."""

import json
import re

import pytest

import clm_core
from clm_core.lazy import lazy_names

HOMES = {"JSONDecoder": "decoder", "JSONEncoder": "backend"}


@pytest.fixture
def quieted():
    return []


@pytest.fixture
def get(quieted):
    return lazy_names("json", HOMES, lambda: quieted.append("quiet"))[0]


def test_a_name_is_the_one_in_its_module_and_a_framework_is_quieted_before(get, quieted):
    assert get("JSONDecoder") is json.JSONDecoder
    assert quieted == ["quiet"]


def test_the_module_that_imports_no_framework_quiets_none(get, quieted):
    with pytest.raises(ModuleNotFoundError, match=r"json\.backend"):
        get("JSONEncoder")
    assert quieted == []


def test_a_name_that_is_not_there_is_an_attribute_error(get, quieted):
    with pytest.raises(AttributeError, match="module 'json' has no attribute 'nonsense'"):
        get("nonsense")
    assert quieted == []


def test_all_names_can_be_listed():
    assert lazy_names("json", HOMES)[1]() == ["JSONDecoder", "JSONEncoder"]


def test_the_options_that_a_function_names_are_exported_beside_it():
    functions = [getattr(clm_core, name) for name, home in clm_core._HOMES.items() if home == "api"]
    named = {name for function in functions for name in re.findall(r"`(\w+Config)`", function.__doc__)}
    assert "TrainConfig" in named
    assert {name: getattr(clm_core, name).__name__ for name in named} == {name: name for name in named}
