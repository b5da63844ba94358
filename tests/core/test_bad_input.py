"""What a person gets wrong: exit code 2, one line with the value, the place and the way out, and nothing written."""

import bz2
import gzip
import json
import lzma
import os
import re
import subprocess
import sys

import pyarrow
import pytest
from small_corpus import DOCUMENTS, SMALL

import clm_core as clm
from clm_core import cli

TEXT = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS).encode()
CSV = b"id,text\n1,fine\n"


def zstd(content):
    return pyarrow.compress(content, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, "there is no file a.txt"),
        ("*.txt", None, "there is no file"),
        ("a" * 300 + ".txt", None, "File name too long"),
        ("a.txt", b"", "a.txt is empty"),
        ("a.jsonl", b"", "a.jsonl is empty"),
        ("a.csv", b"", "a.csv is empty"),
        ("a.parquet", b"", "a.parquet: not a Parquet file"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "a.csv.gz is empty"),
        ("a.docx", b"word", "a.docx has no known extension: expected .txt, .json, .jsonl, .ndjson, .csv,"),
        ("a.jsonl.gz", gzip.compress(TEXT, mtime=0)[:-20], "a.jsonl.gz: the .gz data is truncated or damaged"),
        ("a.jsonl.gz", TEXT, "a.jsonl.gz: the .gz data is truncated or damaged: Not a gzipped file"),
        ("a.jsonl.bz2", bz2.compress(TEXT)[:-20], "a.jsonl.bz2: the .bz2 data is truncated or damaged"),
        ("a.jsonl.bz2", TEXT, "a.jsonl.bz2: the .bz2 data is truncated or damaged"),
        ("a.jsonl.xz", lzma.compress(TEXT)[:-20], "a.jsonl.xz: the .xz data is truncated or damaged"),
        ("a.jsonl.xz", TEXT, "a.jsonl.xz: the .xz data is truncated or damaged"),
        ("a.jsonl.zst", zstd(TEXT)[:-20], "a.jsonl.zst: the .zst data is truncated or damaged: Truncated"),
        ("a.jsonl.zst", TEXT, "a.jsonl.zst: the .zst data is truncated or damaged"),
        (
            "a.parquet.gz",
            gzip.compress(b"PAR1" * 9, mtime=0)[:-9],
            "a.parquet.gz: the .gz data is truncated or damaged",
        ),
        ("a.parquet", b"PAR1" * 50, "a.parquet: not a Parquet file that can be read"),
        ("a.jsonl", TEXT + b'{"text": "never closed\n', "a.jsonl, line 61, column 23: not valid JSON"),
        ("a.json", b'[{"text": "a"},\n{"text" "b"}]', "a.json, line 2, column 9: not valid JSON"),
        ("a.json", b'{\n"text": "a"\n"b": 1}', "a.json, line 3, column 1: not valid JSON"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', "a.jsonl, row 2 is"),
        ("a.json", b"[]", "a.json has no rows"),
        ("a.json", b"[" * 100_000, "cannot read the JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud83d"}\n', r"a.jsonl, row 2: \ud83d is half of a surrogate pair"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl, line 2, column 9: not valid JSON: Expecting value"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', "a.jsonl, row 2: column 'text' contains int '5', not text"),
        ("a.csv", b"id,text\n", "a.csv has no rows"),
        ("a.csv", CSV + b"2,a,b\n", "a.csv, line 3: not valid CSV: 3 fields, but the header has 2"),
        ("a.csv", CSV + b"2\n", "a.csv, line 3: not valid CSV: 1 field, but the header has 2"),
        ("a.csv", CSV + b'2,"never\nclosed\n' + CSV * 5, "a.csv, line 3: not valid CSV: unexpected end of data"),
        ("a.csv", CSV + b'2,"a" b\n', "a.csv, line 3: not valid CSV"),
        ("a.txt", b"fine\n\xff\xfe\n", "a.txt, line 2: not UTF-8: byte 0xff at 5; give its encoding"),
        (
            "a.jsonl",
            b"\x1f\x8b\x08rest",
            "a.jsonl is not text: it is compressed like .gz files: its name must end in .gz",
        ),
        ("a.csv", CSV + "2,é\n".encode("latin-1"), "a.csv, line 3: not UTF-8: byte 0xe9"),
        ("a.txt", "UTF-16".encode("utf-16")[:-1], "a.txt, line 1: not UTF-16-LE: byte 0x36 at 12"),
        (
            "a.txt",
            ("UTF-16 " * 9).encode("utf-16-be"),
            "not UTF-8: 50% of its first bytes are zero; it may be",
        ),
        ("a.txt", bytes(99), "a.txt is almost all zero bytes: it is not text"),
        (
            "a.txt",
            b"%PDF-1.7\n%\xe2\xe3\x00\x01\n",
            "byte 0xe2 at 10; it has control characters",
        ),
        ("a.csv", b"text,id,text\na,1,b\n", "a.csv has 2 columns called 'text' (1, 3): rename one of them"),
        (
            "a.jsonl",
            b'{"text": "a"},\n' * 2,
            "column 14: not valid JSON: Expecting value: a comma between objects",
        ),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"text": 1, "text": "b"}',
            "line 2: cannot read the JSON: an object has",
        ),
        ("a.jsonl", json.dumps(dict.fromkeys(map(str, range(64)))).encode(), "6, 7, 8, 9 and 54 more"),
        ("a.txt", b"\n \n\t\n", "there is no text in train_file a.txt: the only document is empty"),
        ("a.jsonl", b'{"text": ""}\n{"text": null}\n', "all 2 documents are empty"),
        (
            "a.jsonl",
            b'{"body": {"text": "a"}}\n',
            "its columns are body, body.text; did you mean --text-column body.text?",
        ),
        ("a.txt", b"one\n", "of 1 document in train_file a.txt, none went to validation"),
    ],
)
def test_data_that_cannot_be_read(train_refused, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in train_refused(data=("--train-file", name))


def test_a_folder_is_no_file(train_refused, tmp_path):
    (tmp_path / "data").mkdir()
    assert "data is a folder: name files, or a glob such as data/*.jsonl" in train_refused(
        data=("--train-file", "data")
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning-rate", "nan"], "learning_rate must be a finite number above 0, not 'nan' (--learning-rate)"),
        (["--num-train-epochs", "0"], "num_train_epochs must be a finite number above 0"),
        (["--max-steps", "-2"], "max_steps must be above 0, or -1 for no limit"),
        (["--block-size", "0"], "block_size must be at least 2"),
        (["--per-device-train-batch-size", "-1"], "per_device_train_batch_size must be at least 1"),
        (["--block-size", "many"], "block_size must be a whole number, not 'many'"),
        (["--eval-strategy", "never"], "eval_strategy must be one of no, steps, epoch, not 'never'"),
        (["--learning-rat", "1"], "unknown option --learning-rat; did you mean --learning-rate?"),
        (["stray"], "unexpected argument 'stray'"),
        (["--seed"], "--seed needs a value"),
        (["--pt-torch-compile"], "is an option of backend pt, and this run is on bigram"),
        (["--adam-beta1", "0.5"], "backend bigram does not support adam_beta1"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file; the bundled recipes are"),
        (["--config", "sampel"], "did you mean sample?"),
        (["--dataset-name", "some/data"], "dataset_name cannot be combined with train_file or validation_file"),
        (["--dataset-config-name", "en"], "has no effect without dataset_name"),
        (["--prepared", "ready"], "--train-file: the data that prepared names is prepared already"),
        (["--warmup-steps", "5", "--warmup-ratio", "0.1"], "warmup_"),
        (["--config-name", "x"], "config_name and model_type cannot be combined"),
        (["--model-name-or-path", "x"], "give one of them"),
        (["--model-type", "gtp2"], "model_type 'gtp2' is unknown to transformers; did you mean gpt2"),
        (["--config-overrides", "n_emb=64"], "config_overrides 'n_emb=64'"),
        (["--config-overrides", "n_embd"], "config_overrides 'n_embd'"),
        (
            ["--config-overrides", "vocab_size=100"],
            "ids up to 2047, but the model has only 100 embeddings",
        ),
        (["--config-overrides", "n_positions=8"], "block_size 16 exceeds the 8 positions of the model: use 8"),
        (["--resume-from-checkpoint", "nowhere"], "there is no folder nowhere (looked in "),
        (["--resume-from-checkpoint", "Atuo"], "there is no folder Atuo; did you mean auto?"),
        (["--resume-from-checkpoint", "."], "neither a checkpoint nor a run with a checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_honoured(train_refused, argv, message):
    assert message in train_refused(*argv)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "unknown option learning_rat (my.yaml, line 1); did you mean learning_rate?"),
        ("seed: 1\nseed: 2", "my.yaml, line 2: seed is given twice"),
        ("learning_rate: fast", "learning_rate must be a finite number, not 'fast' (my.yaml, line 1)"),
        ("pt:\n  torch_compil: 1", "unknown option torch_compil (my.yaml, line 2); did you mean torch_compile?"),
        ("bigramm:\n  seed: 1", "unknown option bigramm (my.yaml, line 2); did you mean bigram?"),
        ("adam_beta1: 0.5", "does not support adam_beta1"),
        ("lora: {}", "unknown option lora (my.yaml, line 1); did you mean lora_r?"),
        ("lora_r: {}", "lora_r must be a whole number, not {} (my.yaml, line 1)"),
    ],
)
def test_files_that_cannot_be_honoured(train_refused, tmp_path, text, message):
    (tmp_path / "my.yaml").write_text(text)
    assert message in train_refused("--config", "my.yaml")


def test_the_largest_block_size_that_the_error_names_works(train_refused, train):
    message = train_refused("--block-size", "1000")
    largest = int(re.search(r"the largest --block-size that works is (\d+)", message)[1])
    assert train(block_size=largest, per_device_train_batch_size=1).ledger["splits"]["validation"]["blocks"] == 1
    assert "cannot fill one block" in train_refused("--block-size", str(largest + 1))


def test_the_batch_size_that_the_error_names_works(train_refused, train):
    message = train_refused("--per-device-train-batch-size", "1000")
    fitting = int(re.search(r"use --per-device-train-batch-size (\d+)", message)[1])
    assert train(per_device_train_batch_size=fitting).steps == 1


@pytest.mark.parametrize("command", ["prepare", "evaluate", "generate"])
def test_every_command_refuses_an_unknown_option(refused, command):
    assert "unknown option --sed; did you mean --seed?" in refused("--backend", "bigram", command, "--sed", "1")


def test_an_unknown_backend_is_answered_with_the_near_one(refused):
    assert "unknown backend 'bigrm': did you mean bigram" in refused("--backend", "bigrm", "train")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("taken.txt", "output_dir taken.txt is a file"),
        ("taken.txt/below", "taken.txt"),
        ("/proc/clm", "/proc/clm"),
        ("full", "output_dir full is not empty and does not contain a run"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused_before_the_training(train_refused, tmp_path, place, message):
    (tmp_path / "taken.txt").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.md").write_text("mine")
    assert message in train_refused("--output-dir", place)
    assert (tmp_path / "taken.txt").read_text() == (tmp_path / "full" / "thesis.md").read_text() == "mine"


@pytest.mark.parametrize(("flags", "says"), [(os.ST_RDONLY, "is on a read-only disk"), (0, "no permission in ")])
def test_a_disk_that_can_only_be_read_is_named_with_the_way_out(train_refused, monkeypatch, flags, says):
    access, state = os.access, os.statvfs("/")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK and access(path, mode))
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*state[:8], flags, *state[9:])))
    message = train_refused("--output-dir", "new")
    assert says in message
    assert message.endswith(": choose another folder with --output-dir\n")


def test_another_run_is_refused_with_the_ways_out(train_refused, train, tmp_path):
    train(output_dir=tmp_path / "output")
    message = train_refused()
    assert "--resume-from-checkpoint output" in message
    assert "--overwrite-output-dir" in message


@pytest.mark.parametrize("place", ["taken.txt", "taken.txt/below", "/proc/clm", "full"])
def test_prepared_data_go_nowhere_they_cannot_be_written(refused, corpus, tmp_path, place):
    (tmp_path / "taken.txt").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.md").write_text("mine")
    assert place in refused("prepare", "--train-file", corpus, "--tokenizer-name", "sample", "--output-dir", place)


def test_in_the_place_of_a_run_without_a_model_its_newest_checkpoint_is_named(refused, tmp_path):
    for name in ("checkpoint-9", "checkpoint-12", "checkpoint-3"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "config.json").write_text("{}")
        os.utime(tmp_path / "run" / name / "config.json", ns=(0, int(name[11:])))
    said = "run is not a model: it has no config.json; did you mean run/checkpoint-12?"
    assert said in refused("--backend", "bigram", "evaluate", "--model-name-or-path", "run")


def test_a_folder_that_is_no_checkpoint_is_no_model_either(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    message = refused("--backend", "bigram", "evaluate", "--model-name-or-path", "empty")
    assert re.match(r"clm: error: empty is not a model: it has no config.json; name a folder that has one", message)


def test_a_damaged_tokenizer_is_reported_with_its_place(train_refused, tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "broken")
    (tmp_path / "broken" / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "?"}}')
    assert "tokenizer: cannot read broken" in train_refused("--tokenizer-name", "broken")


def test_a_model_that_is_neither_here_nor_to_be_had_is_refused(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    command = [
        sys.executable,
        "-m",
        "clm_core",
        "--backend",
        "bigram",
        "train",
        "--model-name-or-path",
        "no-one/nothing",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(
        "clm: error: tokenizer 'no-one/nothing' is not a local folder, and could not be downloaded from the"
    )
    assert done.stderr.count("\n") == 2
    assert not (tmp_path / "runs").exists()


def test_a_prompt_with_no_room_left_is_refused_with_the_number_that_fits(train, refused, tmp_path):
    train(output_dir=tmp_path / "run", config_overrides="n_positions=16")
    generate = ["--backend", "bigram", "generate", "--model-name-or-path", "run", "Why is sky"]
    message = refused(*generate, "--max-new-tokens", "50")
    fitting = re.search(r"use --max-new-tokens (\d+)", message)[1]
    assert cli.main([*generate, "--max-new-tokens", fitting]) == 0


def test_python_gets_the_same_errors_as_exceptions():
    with pytest.raises(clm.ClmError, match=r"unknown option learning_rat .*did you mean learning_rate"):
        clm.train(backend="bigram", learning_rat=1, **SMALL)
    with pytest.raises(clm.ClmError, match=r"unknown option peft_config \(argument peft_config\); --lora-r trains"):
        clm.train(backend="bigram", peft_config={}, **SMALL)


def test_output_that_nobody_reads_ends_a_command_without_a_traceback():
    command = [sys.executable, "-m", "clm_core", "backends"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
