"""A card says what was done, in figures that are those of the run, and how to do it again."""

import re
import shlex

import pytest
from huggingface_hub import ModelCard

from clm_core import cli
from clm_core.errors import OutputError
from clm_core.model_card import write_card


@pytest.fixture
def run(train, tmp_path):
    return train(output_dir=tmp_path / "run", weight_decay=0.01, append_eos=False)


@pytest.fixture
def card(run):
    """The card of a run, as the Hub reads it."""
    write_card(run.output_dir, "jane/fox", license="cc-by-4.0")
    return ModelCard.load(run.output_dir / "README.md")


def test_the_hub_gets_the_figures_of_the_last_validation(run, card):
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {name: run.after[name] for name in ("perplexity", "loss", "accuracy")}
    assert (card.data.model_name, card.data.pipeline_tag) == ("fox", "text-generation")


def test_a_person_gets_the_ledger_the_licence_and_the_figures_before_and_after(run, card):
    counts = run.ledger["splits"]["train"]
    assert f"| train | {counts['documents']:,} | {counts['tokens']:,} |" in card.text
    assert "| licence of the data | cc-by-4.0 |" in card.text
    assert f"| perplexity | {run.before['perplexity']:,.4f} | {run.after['perplexity']:,.4f} |" in card.text
    assert f"| tokens scored | {run.after['tokens_scored']:,} |" in card.text
    assert "![Loss over the steps](losses.png)" in card.text
    assert (run.output_dir / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_in_the_card_repeats_the_run(run, card, tmp_path, capsys):
    command = re.search(r"```sh\n(clm --backend bigram train .*?)\n```", card.text, re.DOTALL).group(1)
    arguments = shlex.split(command.replace("\\\n", " "))[1:]
    assert cli.main([*arguments, "--output-dir", "again"]) == 0
    again, first = (tmp_path / name / "model.safetensors" for name in ("again", "run"))
    assert again.read_bytes() == first.read_bytes()


def test_no_place_on_this_machine_is_in_it(card, tmp_path):
    assert str(tmp_path) not in card.content
    assert "corpus.jsonl" in card.text


def test_the_model_of_a_foreign_backend_is_not_said_to_open_elsewhere(card):
    assert "from_pretrained" not in card.text
    assert 'clm --backend bigram generate --model-name-or-path jane/fox "Once upon a time"' in card.text


def test_what_is_not_known_of_a_licence_is_not_made_up(run):
    write_card(run.output_dir, "jane/fox", license=None)
    card = ModelCard.load(run.output_dir / "README.md")
    assert "| licence of the data | not known |" in card.text
    assert card.data.license is None


def test_a_run_without_validation_has_a_card_too(train, tmp_path):
    run = train(output_dir=tmp_path / "run", validation_split_percentage=0)
    write_card(run.output_dir, "jane/fox", license=None)
    card = ModelCard.load(run.output_dir / "README.md")
    assert card.data.eval_results is None
    assert "There was no validation." in card.text


def test_a_run_that_did_not_end_has_none(tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(OutputError, match="no run that came to its end"):
        write_card(tmp_path / "run", "jane/fox", license=None)
