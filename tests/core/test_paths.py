"""A path in a command that is printed: followed as it is, it means that path."""

import argparse

import pytest
from support.shell import words

from clm_core import options
from clm_core.config import TrainConfig
from clm_core.paths import in_command, in_shell

NAMES = ["run", "a b", "it's", "~", "$HOME", "two\nlines", "back\\slash\t'", "ü\u2028\x07" + "1", "-", "--help"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_reads_one_word_which_is_no_option(name):
    said = in_command(name)
    assert said.isprintable()
    assert words(said) == [f"./{name}" if name.startswith("-") else name]


@pytest.mark.parametrize("files", [["-a.txt"], ["b.txt", "-a.txt"], ["b.txt", "c d.txt"]])
def test_options_as_flags_are_read_back_whatever_their_values_begin_with(files):
    parser = argparse.ArgumentParser()
    options.add_flags(parser, TrainConfig)
    given = options.to_flags({"train_file": files, "model_name_or_path": "-model"})
    found = parser.parse_args(words(" ".join(map(in_shell, given))))
    assert (found.train_file, found.model_name_or_path) == (files, "-model")
