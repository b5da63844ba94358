"""transformers' PushToHubCallback without git: the last state is always there, and a bad Hub costs no training."""

import json
import subprocess
import sys
import threading

from comparison import assert_same_files
from support.hub_server import Fault, held
from support.waiting import wait_until

PUT, COMMIT = "PUT /_objects/", "POST .*/commit/"


def test_uploads_that_outlast_the_training_lose_nothing_and_hold_up_no_epoch(fit, hub, tmp_path):
    free = threading.Event()
    hub.faults = [Fault(PUT, act=held(free))]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.md").write_text("the folder need not be empty")
    process = fit("keras_fit.py", output_dir="out", hub_model_id="jane/fox", checkpoint=True)
    hub.wait_for(PUT)
    last = tmp_path / "epoch-2"
    wait_until(last.exists, why=(tmp_path / "printed.txt").read_text)  # While the upload of the first is held.
    free.set()
    assert process.answer()["error"] is None
    (tmp_path / "out" / "notes.md").unlink()
    assert_same_files(hub, tmp_path / "out", "jane/fox")
    assert {"checkpoint/weights.h5", "README.md"} <= hub.files("jane/fox").keys()
    assert hub.repos["models", "jane/fox"].messages[1] == "Training in progress epoch 0"
    assert hub.repos["models", "jane/fox"].messages[-1] == "End of training"


def test_a_hub_that_refuses_costs_no_training_and_the_upload_can_be_made_later(fit, hub, tmp_path):
    hub.faults = [Fault(COMMIT, 507)]
    process = fit("keras_fit.py", "again", output_dir="out", save_strategy="steps", save_steps=3)
    assert process.answer()["error"].startswith("507")
    hub.faults.clear()
    process.go_on()
    assert process.answer()["url"] == f"{hub.endpoint}/jane/out"
    assert_same_files(hub, tmp_path / "out", "jane/out")


def test_the_guides_recipe_uploads_each_epoch_from_fit_and_the_run_at_its_end(environment, hub, tmp_path):
    environment = {name: value for name, value in environment.items() if name not in ("USE_TF", "USE_TORCH")}
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": f"Why is it {n}?"}) + "\n" for n in range(99)))
    data = [
        "--dataset-name",
        "none",
        "--dataset-split",
        "train",
        "--text-column",
        "text",
        "--train-file",
        "corpus.jsonl",
    ]
    model = ["--model-name-or-path", "none", "--tokenizer-name", "sample", "--model-type", "gpt2", "--block-size", "8"]
    sizes = ["--config-overrides", "n_embd=16,n_layer=1,n_head=2,n_positions=8", "--num-train-epochs", "2"]
    upload = ["--output-dir", "run", "--push-to-hub", "--hub-model-id", "jane/fox"]
    command = ["--backend", "tf", "train", "--config", "eli5-guide", *data, "--train-file", "corpus.jsonl"]
    done = subprocess.run(
        [sys.executable, "-m", "clm_core", *command, *model, *sizes, *upload],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    messages = hub.repos["models", "jane/fox"].messages
    assert messages[1].startswith("Training in progress epoch ")
    assert "End of training" in messages or "Training in progress epoch 1" in messages  # Whichever came first.
    assert messages[-1].startswith("Upload a model trained with clm")
    files = hub.files("jane/fox")
    assert files["model.safetensors"] == (tmp_path / "run" / "model.safetensors").read_bytes()
    assert {"results.json", "README.md", "tokenizer.json"} <= files.keys()
    assert b"clm" in files["README.md"]
    assert not list((tmp_path / "run").glob(".upload-*"))
