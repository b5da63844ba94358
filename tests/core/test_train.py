"""The commands from beginning to end, on the toy backend: what a run gives back and leaves behind."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clm_bigram import BigramBackend
from small_corpus import DOCUMENTS
from support.folders import history, names

import clm_core as clm
from clm_core import cli
from clm_core.errors import OptionError, OutputError

FILES = [
    "checkpoint-18",
    "config.json",
    "history.jsonl",
    "model.safetensors",
    "results.json",
    "run.yaml",
    "tokenizer.json",
    "tokenizer_config.json",
]
STEPS = 18
METRICS = {"loss", "perplexity", "accuracy", "bits_per_byte", "tokens_scored"}


def test_a_run_leaves_the_model_its_tokenizer_its_options_and_its_figures(train, tmp_path):
    result = train(output_dir=tmp_path / "run")
    assert [name for name in names(tmp_path / "run") if name != "special_tokens_map.json"] == FILES
    assert (result.backend, result.steps, result.epochs) == ("bigram", STEPS, 1.0)
    assert result.checkpoint == tmp_path / "run" / "checkpoint-18"


def test_others_may_read_a_run_as_they_may_read_any_new_file(train, tmp_path):
    (tmp_path / "plain").touch()
    train(output_dir=tmp_path / "run")
    modes = {path.stat().st_mode for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "plain").stat().st_mode}


def test_the_result_is_what_is_written(train, tmp_path):
    result = train(output_dir=tmp_path / "run")
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"config.json", "history.jsonl", "model.safetensors", "run.yaml", "tokenizer.json"} <= {
        *written.pop("files")
    }
    assert len(written.pop("sha256")) == 64
    assert written == result.to_dict() == json.loads(result.to_json())
    assert set(written["before"]) == set(written["after"]) == METRICS


def test_training_teaches_something(train):
    result = train()
    assert result.before["perplexity"] == pytest.approx(2048)
    assert result.after["perplexity"] < 100


def test_the_tokens_trained_are_those_of_the_ledger(train):
    result = train(num_train_epochs=2)
    split = result.ledger["splits"]["train"]
    assert result.tokens_trained == 2 * split["blocks"] * 15
    assert result.ledger["documents"] == {"read": 60, "empty": 0, "skipped": 0, "elsewhere": 0}
    assert split["documents"] == 48


def test_the_history_has_every_report_and_every_validation_in_order(train, tmp_path):
    result = train(output_dir=tmp_path / "run", logging_steps=8, eval_strategy="steps", eval_steps=10)
    assert [(line["step"], "eval_loss" in line) for line in result.history] == [
        (0, True),
        (8, False),
        (10, True),
        (16, False),
        (18, False),
        (18, True),
    ]
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(result.history)


def test_the_same_options_give_the_same_run(train, tmp_path):
    train(output_dir=tmp_path / "a"), train(output_dir=tmp_path / "b")
    assert history(tmp_path / "a") == history(tmp_path / "b")
    model = "model.safetensors"
    assert (tmp_path / "a" / model).read_bytes() == (tmp_path / "b" / model).read_bytes()


def test_another_seed_gives_another_run(train):
    assert train(seed=1).after != train(seed=2).after


def test_the_options_that_were_written_give_the_same_run(train, tmp_path):
    first = train(output_dir=tmp_path / "a", weight_decay=0.01, logging_steps=3)
    again = clm.train(backend="bigram", config=tmp_path / "a" / "run.yaml", output_dir=tmp_path / "b")
    assert (again.after, again.ledger) == (first.after, first.ledger)


def test_without_a_place_each_run_gets_the_first_free_one(train, tmp_path):
    folders = [train().output_dir for _ in range(2)]
    assert [str(folder) for folder in folders] == ["runs/corpus-bigram", "runs/corpus-bigram-2"]
    assert names(tmp_path / "runs") == ["corpus-bigram", "corpus-bigram-2"]


def test_no_validation_and_no_checkpoints_are_written_where_none_are_wanted(train, tmp_path):
    result = train(output_dir=tmp_path / "run", validation_split_percentage=0, save_strategy="no")
    assert (result.before, result.after, result.checkpoint) == (None, None, None)
    assert not [name for name in names(tmp_path / "run") if name.startswith("checkpoint")]
    assert not [line for line in result.history if "eval_loss" in line]


def test_a_training_that_starts_from_a_model_goes_on_from_what_it_knew(train, tmp_path):
    first = train(output_dir=tmp_path / "a")
    second = train(output_dir=tmp_path / "b", model_type=None, model_name_or_path=tmp_path / "a", tokenizer_name=None)
    assert second.before == first.after


def test_a_run_is_evaluated_on_the_data_that_it_held_out(train, tmp_path):
    run = train(output_dir=tmp_path / "run")
    assert clm.evaluate(backend="bigram", model_name_or_path=tmp_path / "run").metrics == run.after


def test_a_result_is_written_to_a_file_where_one_is_named(train, tmp_path):
    train(output_dir=tmp_path / "run")
    result = clm.evaluate(backend="bigram", model_name_or_path=tmp_path / "run", output_file=tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text()) == result.to_dict()


@pytest.mark.parametrize(
    "name",
    ["results.json", "run.yaml", "history.jsonl", "model.safetensors", "config.json", "checkpoint-18/checkpoint.json"],
)
def test_a_result_does_not_replace_a_file_of_a_run(train, tmp_path, name):
    train(output_dir=tmp_path / "run")
    before = (tmp_path / "run" / name).read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "run" / name)
    for place in (tmp_path / "run" / name, tmp_path / "link"):
        with pytest.raises(OutputError, match=r"output_file .* would replace a file of .*: choose another name"):
            clm.evaluate(backend="bigram", model_name_or_path=tmp_path / "run", output_file=place)
    assert (tmp_path / "run" / name).read_bytes() == before


@pytest.mark.parametrize("data", ["the sample", "prepared"])
def test_a_result_of_any_data_is_written(train, prepare, tmp_path, data):
    own = (
        {"prepared": prepare().folder, "model_type": "gpt2", "tokenizer_name": "sample"}
        if data == "prepared"
        else {"max_train_samples": 20}
    )
    clm.train(backend="bigram", block_size=16, max_steps=1, output_dir=tmp_path / "run", **own)
    result = clm.evaluate(backend="bigram", model_name_or_path=tmp_path / "run", output_file="results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == result.to_dict()


@pytest.mark.parametrize("by", [None, "corp*.jsonl", "file://{}/corpus.jsonl"], ids=["run", "pattern", "URL"])
def test_a_result_does_not_replace_what_is_read_for_it(train, tmp_path, by):
    train(output_dir=tmp_path / "run")
    read = {"validation_file": by.format(tmp_path)} if by else {}
    with pytest.raises(OutputError, match=r"corpus\.jsonl would replace a file that is to be read"):
        clm.evaluate(backend="bigram", model_name_or_path=tmp_path / "run", output_file="corpus.jsonl", **read)


def test_a_result_replaces_an_earlier_one_whatever_its_name(train, tmp_path):
    train(output_dir=tmp_path / "run")
    for _ in range(2):
        result = clm.evaluate(backend="bigram", model_name_or_path=tmp_path / "run", output_file="results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == result.to_dict()


def test_a_result_goes_through_a_pipe_or_a_link_and_not_in_its_place(train, tmp_path):
    train(output_dir=tmp_path / "run")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("target")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        for name in ("pipe", "link"):
            clm.evaluate(backend="bigram", model_name_or_path=tmp_path / "run", output_file=tmp_path / name)
        assert "perplexity" in json.loads(read.result())["metrics"]
    assert "perplexity" in json.loads((tmp_path / "target").read_text())["metrics"]
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/2", "/", "nowhere/e.json"])
def test_a_place_that_takes_no_result_is_refused_before_the_work(train, tmp_path, name):
    train(output_dir=tmp_path / "run")
    with pytest.raises(OutputError, match=f"output_file {name}"):
        clm.evaluate(backend="bigram", model_name_or_path=tmp_path / "run", output_file=name)


def test_a_prompt_is_continued_in_the_words_of_the_corpus(train, tmp_path):
    train(output_dir=tmp_path / "run")
    result = clm.generate("Why is", backend="bigram", model_name_or_path=tmp_path / "run", max_new_tokens=3)
    assert result.tokens == 3
    assert result.completion.startswith(" sky number")
    assert any(result.prompt + result.completion in text for text in DOCUMENTS)


def test_sampling_is_decided_by_its_seed(train, tmp_path):
    train(output_dir=tmp_path / "run")
    options = {"backend": "bigram", "model_name_or_path": tmp_path / "run", "do_sample": True, "max_new_tokens": 30}
    texts = [clm.generate("Why", seed=seed, **options).completion for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_flag_wins_over_a_file_and_a_file_over_the_default(corpus, tmp_path, capsys):
    (tmp_path / "my.yaml").write_text("logging_steps: 7\nseed: 1\nlearning_rate: 2e-5\neval_strategy: no\n")
    flags = ["--train-file", str(corpus), "--model-type", "gpt2", "--tokenizer-name", "sample", "--block-size", "16"]
    given = ["--config", "my.yaml", "--seed", "2", "--max-steps", "2", "--output-dir", "run", "--json"]
    assert cli.main(["--backend", "bigram", "train", *flags, *given]) == 0
    written = (tmp_path / "run" / "run.yaml").read_text()
    assert "logging_steps: 7\n" in written
    assert "seed: 2\n" in written
    assert "eval_strategy: 'no'\n" in written
    assert "learning_rate" not in written
    assert json.loads(capsys.readouterr().out)["steps"] == 2


def test_a_file_may_hold_options_of_backends_that_are_not_used(corpus, tmp_path, train):
    (tmp_path / "my.yaml").write_text("pt:\n  torch_compile: true\nbigram: {}\n")
    assert train(config=tmp_path / "my.yaml").steps == STEPS


def test_the_command_prints_what_was_done_and_nothing_else(corpus, tmp_path):
    command = [sys.executable, "-m", "clm_core", "--backend", "bigram", "train", "--max-steps", "3", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["output_dir"] == "runs/sample-bigram"
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_the_built_in_sample_is_trained_on_where_nothing_is_named(monkeypatch, capsys):
    monkeypatch.setenv("CLM_BACKEND", "bigram")
    assert cli.main(["train", "--max-steps", "2", "--max-eval-samples", "20"]) == 0
    assert (
        "next        clm --backend bigram generate --model-name-or-path runs/sample-bigram" in capsys.readouterr().out
    )


def test_ctrl_c_ends_the_command_with_the_code_of_the_shells(monkeypatch, capsys):
    def interrupt(self, job):
        raise KeyboardInterrupt

    monkeypatch.setattr(BigramBackend, "train", interrupt)
    assert cli.main(["--backend", "bigram", "train"]) == 130
    assert capsys.readouterr().err == "clm: interrupted\n"


def test_a_model_may_be_evaluated_on_a_file_of_its_own(train, corpus, tmp_path):
    train(output_dir=tmp_path / "run")
    (tmp_path / "v.txt").write_text("\n".join(DOCUMENTS[:10]))
    result = clm.evaluate(
        backend="bigram", model_name_or_path=tmp_path / "run", validation_file="v.txt", sample_by="line"
    )
    assert result.ledger["splits"]["validation"]["documents"] == 10


def test_a_checkpoint_is_a_model_with_its_tokenizer(train):
    run = train(output_dir="run", max_steps=2)
    text = clm.generate("The", backend="bigram", model_name_or_path=run.checkpoint, max_new_tokens=3)
    assert text.tokens == 3


def test_a_run_can_be_evaluated_from_another_folder(train, tmp_path, monkeypatch):
    run = train(output_dir="run", train_file="corpus.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert clm.evaluate(backend="bigram", model_name_or_path="../run").metrics == run.after


def test_prepared_data_take_the_place_of_data_in_a_file_and_beside_them_options_for_data_are_refused(train, corpus):
    folder = clm.prepare(train_file=corpus, tokenizer_name="sample", block_size=16).folder
    Path("recipe.yaml").write_text("dataset_name: no-one/nothing\nmodel_type: gpt2\ntokenizer_name: sample\n")
    given = {"backend": "bigram", "config": "recipe.yaml", "prepared": folder, "block_size": 16, "max_steps": 1}
    assert clm.train(**given).steps == 1
    with pytest.raises(OptionError, match="argument append_eos: the data that prepared names is prepared already"):
        clm.train(**given, append_eos=False)
