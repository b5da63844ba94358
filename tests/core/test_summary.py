"""What a person reads at the end of a command: the figures of the result, where it is, and what to run next."""

import shlex
from dataclasses import replace

import pytest

import clm_core as clm
from clm_core import cli
from clm_core.commands import summary
from clm_core.config import PrepareConfig, TrainConfig
from clm_core.results import GenerationResult, Publication


@pytest.fixture
def trained(train):
    return train(output_dir="my run", max_steps=2)


def publication(**more):
    return Publication(**{"repository": "jane/fox", "revision": "main", "state": "failed", **more})


def test_a_training_is_told_by_its_steps_and_its_perplexity_before_and_after(trained):
    lines = summary.of_training(TrainConfig(train_file=("a.txt",)), trained, None).splitlines()
    assert lines[0].startswith(
        f"trained     2 steps, {trained.epochs:.2f} epochs, {trained.tokens_trained:,} tokens in "
    )
    assert lines[1].startswith(f"perplexity  {trained.after['perplexity']:,.2f} (before: 2,048.00), loss ")
    assert lines[2] == "written     'my run': model, tokenizer, run.yaml, results.json, history.jsonl, 1 checkpoint"


def test_the_commands_that_follow_can_be_run_as_they_stand(trained, capsys):
    lines = summary.of_training(TrainConfig(train_file=("a.txt",)), trained, None).splitlines()
    for line in lines[3:]:
        assert cli.main(shlex.split(line.removeprefix("next"))[1:]) == 0
    assert "perplexity" in capsys.readouterr().out


def test_without_validation_there_is_no_perplexity_and_nothing_to_evaluate(trained):
    text = summary.of_training(TrainConfig(train_file=("a.txt",)), replace(trained, before=None, after=None), None)
    assert "perplexity" not in text
    assert "evaluate" not in text


def test_of_the_sample_a_completion_is_shown_and_the_way_to_the_guide(trained):
    found = GenerationResult(backend="bigram", model="my run", prompt="Why", completion=" is it so? ", tokens=4)
    text = summary.of_training(TrainConfig(), trained, found)
    assert "\ncompletion  Why is it so?\n" in text
    assert text.splitlines()[-1].startswith("the guide   clm --backend bigram train --config eli5 ")


def test_a_name_on_the_hub_without_an_upload_is_for_later(trained):
    config = TrainConfig(train_file=("a.txt",), hub_model_id="jane/fox")
    assert "\nto publish  clm push 'my run'" in summary.of_training(config, trained, None)


@pytest.mark.parametrize(
    ("done", "lines"),
    [
        (
            publication(state="uploaded", url="https://hub/jane/fox", commit="0123456789"),
            ["published   https://hub/jane/fox (commit 01234567)"],
        ),
        (
            publication(error="503 because", command="clm push run", revision="v2"),
            [
                "failed      503 because",
                "not on the Hub yet: jane/fox, branch v2; to upload it:",
                "            clm push run",
            ],
        ),
    ],
    ids=["uploaded", "failed"],
)
def test_an_upload_ends_with_where_it_is_or_with_the_command_for_it(trained, done, lines):
    text = summary.of_training(TrainConfig(train_file=("a.txt",)), replace(trained, hub=done), None)
    assert text.splitlines()[-len(lines) :] == lines


def test_an_evaluation_is_five_figures(trained):
    result = clm.evaluate(backend="bigram", model_name_or_path=trained.output_dir)
    lines = summary.of_evaluation(result).splitlines()
    assert [line[:15].strip() for line in lines] == [
        *("loss", "perplexity", "accuracy", "bits per byte", "tokens scored"),
    ]
    assert lines[0].split()[1] == f"{result.metrics['loss']:.4f}"
    assert lines[4].split()[2] == f"{result.metrics['tokens_scored']:,}"


def test_prepared_data_are_followed_by_the_training_on_them(corpus):
    result = clm.prepare(train_file=corpus, tokenizer_name="sample", block_size=16, output_dir="ready")
    config = PrepareConfig(train_file=(str(corpus),), block_size=16)
    given = "--model-type gpt2 --tokenizer-name sample --block-size 16"
    lines = [line.split() for line in summary.of_preparation(config, result, "bigram").splitlines()]
    assert lines == [["written", "ready"], ["next", *f"clm --backend bigram train --prepared ready {given}".split()]]
    assert summary.of_preparation(config, replace(result, reused=True)).split()[:2] == ["cached", "ready"]


def test_an_inspection_shows_what_went_in_what_came_out_and_a_block(corpus):
    clm.prepare(train_file=corpus, tokenizer_name="sample", output_dir="ready")
    result = clm.inspect("ready", block_size=16, verify=True)
    text = summary.of_inspection(result)
    train = result.ledger["splits"]["train"]
    assert text.startswith("ready: every byte is as it was written\ntokenizer sample, by ")
    assert f"\ntrain: 48 documents, {train['tokens']:,} tokens + 48 EOS = " in text
    assert "\nblock 0 of train:\n--- document 0\nWhy is sky number" in text
