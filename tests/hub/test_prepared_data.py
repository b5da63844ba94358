"""Prepared data go to the Hub and come back, byte for byte, and offline too."""

import json

import pytest
from support.hub_server import Fault

PREPARE = [
    "prepare",
    "--train-file",
    "corpus.jsonl",
    "--tokenizer-name",
    "sample",
    "--validation-split-percentage",
    "0",
]
PUSH = [*PREPARE, "--output-dir", "fox", "--push-to-hub"]


@pytest.fixture
def train_on(training):
    """A training on prepared data, that is not published."""
    data = training.index("--train-file")
    rest = [*training[:data], *training[data + 2 : training.index("--validation-split-percentage")]]
    return lambda prepared, folder: [*rest, "--prepared", prepared, "--output-dir", folder]


def test_what_was_prepared_is_published_as_it_is_with_a_card(clm, hub, training, tmp_path):
    assert clm(*PUSH) == 0
    files = hub.files("jane/fox", kind="datasets")
    card = files.pop("README.md").decode()
    assert "clm train --prepared jane/fox --tokenizer-name sample" in card
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "fox").iterdir()}
    assert f"published   {hub.endpoint}/datasets/jane/fox" in clm.out


def test_a_training_reads_it_from_the_hub_and_later_without_one(clm, hub, training, train_on, tmp_path):
    assert clm(*PUSH) == 0
    assert clm(*train_on("fox", "here")) == 0
    assert clm(*train_on("jane/fox", "there")) == 0
    hub.close()
    assert clm(*train_on("jane/fox", "later")) == 0
    hub.open()
    weights = {(tmp_path / run / "model.safetensors").read_bytes() for run in ("here", "there", "later")}
    assert len(weights) == 1


def test_a_branch_is_published_and_read(clm, hub, training, train_on):
    assert clm(*PUSH, "--hub-revision", "v2", "--hub-dataset-id", "acme/data", "--hub-private-repo") == 0
    assert hub.repos["datasets", "acme/data"].private
    assert clm(*train_on("acme/data@v2", "run")) == 0
    assert clm(*train_on("acme/data", "other")) == 2
    assert "contains no prepared data" in clm.err


def test_an_upload_of_data_that_failed_goes_on_later(clm, hub, training, tmp_path):
    hub.faults = [Fault("POST .*/commit/", 503)]
    assert clm(*PUSH, "--hub-private-repo") == 3
    assert clm.out.splitlines()[-1].strip() == "clm push fox --hub-dataset-id fox --hub-private-repo"
    hub.faults.clear()
    assert clm("push", "fox", "--hub-dataset-id", "fox") == 0
    manifest = json.loads((tmp_path / "fox" / "manifest.json").read_text())
    assert json.loads(hub.files("jane/fox", kind="datasets")["manifest.json"]) == manifest


def test_data_that_were_damaged_are_not_published(clm, hub, training, tmp_path):
    assert clm(*PREPARE, "--output-dir", "fox") == 0
    file = tmp_path / "fox" / "train.bin"
    file.write_bytes(bytes(len(file.read_bytes())))
    assert clm("push", "fox") == 3
    assert "train.bin does not match its checksum" in clm.out
    assert hub.requests == []


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--hub-dataset-id", "x", "--shard", "1/2"], "hub_dataset_id: one shard of the data is not a dataset"),
        (["--push-to-hub"], "give hub_dataset_id, or output_dir"),
        (["--push-to-hub", "--output-dir", "part", "--shard", "1/2"], "merge the shards first"),
    ],
)
def test_options_that_would_publish_nothing_are_refused(clm, hub, training, options, word):
    assert clm(*PREPARE, *options) == 2
    assert word in clm.err


def test_a_name_that_is_given_without_publishing_is_kept_for_later(clm, hub, training, tmp_path):
    names = ["--hub-dataset-id", "jane/later", "--hub-revision", "next"]
    assert clm(*PREPARE, "--output-dir", "fox", *names) == 0
    assert "to upload it:\n            clm push fox" in clm.out
    assert hub.requests == []
    assert clm("push", "fox") == 0
    assert "jane/later" in clm.out
    files = hub.files("jane/later", "next", kind="datasets")
    assert "manifest.json" in files
    assert "publication.json" not in files


def test_a_data_set_that_is_not_there_is_named(clm, hub, training, train_on):
    assert clm(*train_on("jane/nothing", "run")) == 2
    assert "prepared: there is no folder jane/nothing, and it could not be downloaded from the Hub" in clm.err


def test_a_file_for_trainings_does_not_publish_the_data(clm, hub, training, tmp_path):
    (tmp_path / "my.yaml").write_text("push_to_hub: true\nhub_model_id: jane/model\ntrain_file: corpus.jsonl\n")
    assert clm("prepare", "--config", "my.yaml", "--tokenizer-name", "sample", "--output-dir", "fox") == 0
    assert hub.requests == []
    assert clm("push", "fox", "--hub-model-id", "jane/x") == 2
    assert "contains prepared data: give hub_dataset_id" in clm.err


def test_what_counts_is_published_too_and_comes_back(clm, hub, training, train_on, tmp_path):
    rows = [json.loads(line) for line in (tmp_path / "corpus.jsonl").read_text().splitlines()]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"title": "On foxes", **row}) + "\n" for row in rows))
    columns = ["--prompt-column", "title", "--completion-column", "text"]
    assert clm(*PUSH, *columns) == 0
    files = hub.files("jane/fox", kind="datasets")
    assert files["train.mask"] == (tmp_path / "fox" / "train.mask").read_bytes()
    assert "which of them count is in `*.mask`" in files["README.md"].decode()
    assert clm("verify", "fox") == 0
