"""What is wrong with files, columns, folders and options is said before transformers or a framework is imported."""

import os
import subprocess
import sys

import pytest

import clm_core as clm
from clm_core.data.readers.files import Layout

RUN = """
import sys
from clm_core.cli import main
code = main(sys.argv[1:])
print(code, sorted({"torch", "tensorflow", "transformers", "datasets"} & set(sys.modules)))
"""


@pytest.fixture
def first_line(tmp_path):
    """Run a command without a network in a process of its own: its code, what it had imported, and its error."""

    def run(*argv):
        environment = {**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": "http://127.0.0.1:9"}
        command = [sys.executable, "-c", RUN, *argv]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout.strip(), done.stderr.strip()

    return run


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("train", "--train-file", "corpus.json"), "there is no file corpus.json; did you mean corpus.jsonl?"),
        (("train", "--train-file", "Corpuss/*.jsonl"), "train_file: there is no file Corpuss/*.jsonl (looked in "),
        (("train", "--train-file", "thesis.pdf"), "thesis.pdf has no known extension"),
        (("train", "--train-file", "corpus.jsonl", "--text-column", "txt"), "no column 'txt'; its columns are text"),
        (("prepare", "--validation-file", "x.txt"), "validation_file: there is no file x.txt"),
        (("prepare", "--text-column", "body"), "the built-in sample has no column 'body'"),
    ],
)
def test_wrong_data_are_found_before_a_tokenizer_is_asked_for(first_line, corpus, tmp_path, argv, message):
    (tmp_path / "thesis.pdf").write_bytes(b"%PDF-1.7")
    code, error = first_line("--backend", "bigram", *argv)
    assert code == "2 []"
    assert message in error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/a/b", "model_name_or_path: there is no folder runs/a/b (looked in "),
        ("./mine", "there is no folder ./mine (looked in "),
        ("~/mine", "there is no folder ~/mine; ~ was not expanded here: give /"),
        ("runs/prodcts", "there is no folder runs/prodcts; did you mean runs/products?"),
        ("runs/products/", "runs/products"),
    ],
)
def test_a_folder_that_is_not_here_is_not_looked_for_on_the_hub(first_line, tmp_path, name, message):
    (tmp_path / "runs" / "products").mkdir(parents=True)
    code, error = first_line("--backend", "bigram", "generate", "--model-name-or-path", name, "Once")
    assert code.startswith("2 ")
    assert message in error
    assert "Hub" not in error


def test_a_name_on_the_hub_is_given_up_at_the_first_sign_that_the_hub_is_not_there(first_line):
    code, error = first_line("--backend", "bigram", "generate", "--model-name-or-path", "gpt2", "Once")
    assert code == "2 []"
    assert "'gpt2' is not a local folder, and the Hub cannot be reached: " in error
    assert "--config sample" in error


def test_data_without_a_model_are_answered_with_both_ways_as_whole_commands(first_line, corpus):
    code, error = first_line("--backend", "bigram", "train", "--train-file", "corpus.jsonl", "--max-steps", "2")
    start, given = "clm --backend bigram train", "--train-file corpus.jsonl --max-steps 2"
    assert code == "2 []"
    assert f"`{start} {given} --model-name-or-path distilbert/distilgpt2`" in error
    assert f"`{start} --config sample {given}`" in error


@pytest.mark.parametrize("name", ["corpus.jsonl", "a.txt"])
def test_the_recipe_of_the_sample_takes_data_of_ones_own(corpus, tmp_path, name):
    (tmp_path / "a.txt").write_text("One of my own.\n\n" * 60)
    assert clm.prepare(config="sample", train_file=name, block_size=16).ledger["documents"]["read"] == 60


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--csv-delimiter", ";"), "csv_delimiter ; is for .csv, .tsv files, and none is given"),
        (("--sample-by", "line"), "sample_by line is for .txt files, and none is given"),
        (("--encoding", "klingon"), "encoding must be an encoding of text, such as"),
        (("--csv-delimiter", "ab"), "csv_delimiter must be one character, or `tab`, or `auto`"),
        (("--json-field", "data"), "json_field 'data': there is no 'data'; its fields are text"),
    ],
)
def test_an_option_that_says_nothing_about_these_files_is_refused(train_refused, argv, message):
    assert message in train_refused(*argv)


@pytest.mark.parametrize("option", [("--json-field", "data"), ("--csv-delimiter", ";"), ("--encoding", "cp1252")])
def test_an_option_of_files_needs_files(train_refused, option):
    assert "has no effect without train_file" in train_refused(*option, data=())


def test_new_options_leave_the_keys_of_data_that_were_prepared_before(tmp_path):
    assert Layout("body", "line").key() == "Layout(text_column='body', sample_by='line')"
    assert Layout(encoding="cp1252").key() != Layout().key() != Layout(json_field="data").key()
