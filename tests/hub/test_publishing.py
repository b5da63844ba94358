"""What is published of a training, when, and what becomes of what was there."""

import json
import os
import signal
import threading

import pytest
from comparison import assert_equal
from support.hub_server import Fault, gone, held, reset, stall
from support.waiting import wait_until

PUT, COMMIT = "PUT /_objects/", "POST .*/commit/"
STEPS = ["--save-strategy", "steps", "--save-steps", "6", "--save-total-limit", "1"]


@pytest.mark.parametrize("act", [reset, stall, None], ids=["reset", "stall", "503"])
def test_an_upload_goes_on_after_a_fault_that_passes(clm, hub, training, tmp_path, act):
    hub.faults = [Fault(PUT, None if act else 503, act=act, times=1)]
    assert clm(*training) == 0
    assert_equal(hub, tmp_path / "run")


def test_a_commit_goes_on_after_a_fault_that_passes(clm, hub, training, tmp_path):
    hub.faults = [Fault(COMMIT, 503, times=1)]
    assert clm(*training) == 0
    assert_equal(hub, tmp_path / "run")
    assert "again in 0 s (1 of 1)" in clm.err


def test_a_run_is_published_with_its_card_and_curve_and_the_summary_says_where(clm, hub, training, tmp_path):
    assert clm(*training) == 0
    files = hub.files("jane/run")
    assert {"README.md", "losses.png", "model.safetensors", "tokenizer.json", "history.jsonl"} <= files.keys()
    assert files["losses.png"].startswith(b"\x89PNG")
    assert f"published   {hub.endpoint}/jane/run" in clm.out
    assert_equal(hub, tmp_path / "run")


def test_a_run_that_is_published_already_makes_no_commit_and_uploads_nothing(clm, hub, training):
    assert clm(*training) == 0
    before = hub.count(PUT), hub.count(COMMIT)
    assert clm("push", "run") == 0
    assert (hub.count(PUT), hub.count(COMMIT)) == before


def test_what_an_upload_got_through_before_it_failed_is_not_uploaded_again(clm, hub, training):
    hub.faults = [Fault(COMMIT, 403)]
    assert clm(*training) == 3
    assert (uploaded := hub.count(PUT)) > 0
    hub.faults.clear()
    assert clm("push", "run") == 0
    assert hub.count(PUT) == uploaded


def test_a_server_that_goes_away_and_comes_back_costs_nothing(clm, hub, training, tmp_path):
    hub.faults = [Fault("/jane/run/", act=gone, times=1)]  # The first request after those that check.
    assert clm(*training) == 3
    assert "clm push run" in clm.out.splitlines()[-1]
    hub.open()
    assert clm("push", "run") == 0
    assert_equal(hub, tmp_path / "run")


def test_an_upload_that_outlasts_the_training_blocks_no_step_and_the_last_state_is_not_skipped(
    clm, hub, training, tmp_path
):
    free = threading.Event()
    hub.faults = [Fault(PUT, act=held(free))]
    clm.start(*training, *STEPS, "--hub-strategy", "every_save", "--logging-steps", "1")
    hub.wait_for(PUT)
    history = tmp_path / "run" / "history.jsonl"
    wait_until(lambda: '"step": 18' in history.read_text(), why=lambda: clm.err)  # The last, while the first is held.
    free.set()
    assert clm.wait() == 0
    assert_equal(hub, tmp_path / "run")
    assert hub.repos["models", "jane/run"].messages[1:] == [
        "Training in progress, step 6",
        "Upload a model trained with clm, 18 steps",
    ]


def test_checkpoints_that_cannot_be_uploaded_cost_neither_the_training_nor_the_end(clm, hub, training, tmp_path):
    hub.faults = [Fault(PUT, 403, times=1)]
    assert clm(*training, *STEPS, "--hub-strategy", "every_save") == 0
    assert hub.faults[0].times == 0
    assert_equal(hub, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".upload")] == []


def test_with_strategy_checkpoint_a_training_can_be_resumed_from_the_repository(clm, hub, training, tmp_path):
    assert clm(*training, *STEPS, "--hub-strategy", "checkpoint") == 0
    fetched = tmp_path / "fetched"
    for path, content in hub.files("jane/run").items():
        (fetched / path).parent.mkdir(parents=True, exist_ok=True)
        (fetched / path).write_bytes(content)
    assert (fetched / "last-checkpoint" / "checkpoint.json").is_file()
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    resume = ["--resume-from-checkpoint", fetched / "last-checkpoint", "--max-steps", "36"]
    assert clm("train", *resume, "--train-file", "corpus.jsonl") == 0
    assert json.loads((fetched / "results.json").read_text())["steps"] == 36


def test_nothing_secret_and_no_place_on_this_machine_is_uploaded(clm, hub, training, tmp_path):
    assert clm(*training, *STEPS, "--hub-strategy", "checkpoint") == 0
    (tmp_path / "run" / "checkpoint-18" / "training_args.bin").write_bytes(b"a pickle, with a token in it")
    (tmp_path / "run" / "notes.md").write_text("mine")
    (tmp_path / "run" / ".env").write_text("mine")
    assert clm("push", "run") == 0
    files = hub.files("jane/run")
    assert {path for path in files if "notes" in path or "env" in path or "training_args" in path} == set()
    assert [path for path, content in files.items() if os.fsencode(tmp_path) in content] == []
    assert "train_file:\n- corpus.jsonl\n" in files["run.yaml"].decode()


def test_what_an_earlier_run_left_is_removed_and_what_others_put_there_is_not(clm, hub, training, tmp_path):
    assert clm(*training) == 0
    repo = hub.repos["models", "jane/run"]
    others = {"LICENSE": b"text", "onnx/model.onnx": b"other"}
    stale = {"model-00001-of-00002.safetensors": b"old", "last-checkpoint/optimizer.pt": b"old", "merges.txt": b"old"}
    repo.commit("main", {**repo.commits[repo.branches["main"]], **others, **stale}, "by hand")
    assert clm("push", "run") == 0
    assert others.items() <= hub.files("jane/run").items()
    assert stale.keys() & hub.files("jane/run").keys() == set()


def test_a_commit_of_someone_else_that_comes_in_between_is_not_overwritten_unseen(clm, hub, training, tmp_path):
    def cut_in(handler):
        repo = hub.repos["models", "jane/run"]
        repo.commit("main", {**repo.commits[repo.branches["main"]], "LICENSE": b"text"}, "by hand")

    hub.faults = [Fault("POST .*/preupload/", act=cut_in, times=1)]
    assert clm(*training) == 0
    assert hub.files("jane/run")["LICENSE"] == b"text"
    assert hub.count(COMMIT) == 2


def test_a_card_that_was_edited_is_kept_and_a_run_that_goes_on_gets_a_new_one(clm, hub, training, tmp_path):
    assert clm(*training) == 0
    card = tmp_path / "run" / "README.md"
    card.write_text(card.read_text().replace("# run", "# My own words"))
    assert clm("push", "run") == 0
    assert "# My own words" in hub.files("jane/run")["README.md"].decode()
    assert clm("train", "--resume-from-checkpoint", "run", "--max-steps", "36") == 0
    assert "36 steps" in hub.files("jane/run")["README.md"].decode()


def test_a_repository_that_was_deleted_is_made_again(clm, hub, training, tmp_path):
    assert clm(*training) == 0
    hub.repos.clear()
    assert clm("push", "run") == 0
    assert_equal(hub, tmp_path / "run")


def test_another_name_a_branch_and_privacy_are_honoured_and_remembered(clm, hub, training, tmp_path):
    options = ["--hub-model-id", "acme/fox", "--hub-revision", "v2", "--hub-private-repo"]
    assert clm(*training, *options) == 0
    assert hub.repos["models", "acme/fox"].private
    assert hub.files("acme/fox") == {}
    published = hub.files("acme/fox", "v2")
    assert clm("push", "run") == 0
    assert hub.files("acme/fox", "v2") == published
    assert clm("push", "run", "--hub-model-id", "jane/other", "--hub-revision", "main") == 0
    assert "model.safetensors" in hub.files("jane/other")


def test_offline_a_training_asks_the_hub_nothing_and_is_queued(clm, hub, training, tmp_path):
    assert clm(*training, "--hub-offline") == 0
    assert hub.requests == []
    assert clm.out.splitlines()[-1].strip() == "clm push run"
    record = json.loads((tmp_path / "run" / "results.json").read_text())["hub"]
    assert (record["state"], record["command"]) == ("queued", "clm push run")
    assert clm("push", "run", "--json") == 0
    assert json.loads(clm.out)["state"] == "uploaded"
    assert_equal(hub, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_an_upload_at_once_and_says_how_to_go_on(new_clm, environment, hub, training, tmp_path, number):
    clm = new_clm(environment)  # Whose threads go with it.
    free = threading.Event()
    hub.faults = [Fault(PUT, act=held(free))]
    clm.start(*training)
    hub.wait_for(PUT)
    clm.process.send_signal(number)
    assert clm.wait() == 128 + number
    free.set()
    assert "not uploaded; the run is on disk: clm push run" in clm.err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["hub"]["state"] == "queued"
    hub.faults.clear()
    assert clm("push", "run") == 0
    assert_equal(hub, tmp_path / "run")


def test_a_signal_ends_the_wait_for_the_upload_of_a_checkpoint(new_clm, environment, hub, training, tmp_path):
    clm, run, free = new_clm(environment), tmp_path / "run", threading.Event()
    hub.faults = [Fault(PUT, act=held(free))]
    training[training.index("18")] = "290"  # At the end, an upload that has not begun is not waited for.
    clm.start(*training, "--hub-strategy", "every_save", "--save-strategy", "steps", "--save-steps", "150")
    hub.wait_for(PUT)
    wait_until((run / "model.safetensors").exists)
    clm.process.send_signal(signal.SIGTERM)
    assert clm.wait() == 143
    free.set()
    assert "run is finished; to upload it: clm push run" in clm.err
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_a_run_that_was_not_to_be_published_can_be(clm, hub, training, tmp_path):
    training.remove("--push-to-hub")
    assert clm(*training) == 0
    assert hub.requests == []
    assert clm("push", "run") == 0
    assert_equal(hub, tmp_path / "run")


def test_the_command_for_an_upload_that_failed_has_the_options_that_the_run_does_not(clm, hub, training):
    hub.faults = [Fault(COMMIT, 507)]
    training.remove("--push-to-hub")
    assert clm(*training) == 0
    options = ["--hub-private-repo", "--hub-license", "mit"]
    assert clm("push", "run", "--hub-model-id", "acme/fox", *options) == 3
    assert clm.out.splitlines()[-1].strip() == " ".join(["clm push run", *options])
    assert clm(*training, "--resume-from-checkpoint", "auto") == 0  # It is no upload, which is still to come.
    assert "not on the Hub yet: acme/fox; to upload it:" in clm.out


def test_for_programs_the_result_has_what_became_of_the_upload(clm, hub, training):
    hub.faults = [Fault(COMMIT, 507)]
    assert clm(*training, "--json") == 3
    found = json.loads(clm.out)["hub"]
    assert (found["state"], found["command"]) == ("failed", "clm push run")
    assert found["error"].startswith("507")
    assert clm("push", "run", "--json") == 3
    assert json.loads(clm.out)["state"] == "failed"


def test_a_folder_without_a_finished_run_is_not_pushed(clm, hub, tmp_path):
    (tmp_path / "empty").mkdir()
    assert clm("push", "empty") == 2
    assert clm("push", "nowhere") == 2
    assert hub.requests == []
    assert "not a finished run" in clm.err


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "history.jsonl"])
def test_a_run_that_was_damaged_is_not_uploaded(clm, hub, training, tmp_path, name):
    assert clm(*training, "--hub-offline") == 0
    file = tmp_path / "run" / name
    file.write_bytes(bytes(len(file.read_bytes())))
    assert clm("push", "run") == 2
    assert f"run is damaged: {name} does not match its checksum: nothing is uploaded" in clm.err
    file.unlink()
    assert clm("push", "run") == 2
    assert f"run is damaged: {name} is missing" in clm.err
    assert hub.requests == []
