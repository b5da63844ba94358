"""Checkpoints: whole or not there, found, limited in number, and only continued by the run they belong to."""

import errno
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from clm_bigram import BigramBackend
from safetensors.numpy import load_file, save_file
from support.jobs import new_job

from clm_core import Schedule, TrainConfig, checkpoints
from clm_core.errors import DiskFullError, ModelError


def schedule(blocks=64, data="hash", **options):
    return Schedule.from_config(TrainConfig(**{"max_steps": 100, **options}), blocks=blocks, data=data)


@pytest.fixture
def job(tmp_path, tmp_path_factory):
    def make(**options):
        options = {"save_total_limit": TrainConfig().save_total_limit, **options}
        made = new_job(BigramBackend(), tmp_path_factory.mktemp("job") / "run", report=print, **options)
        return replace(made, schedule=schedule(), output_dir=tmp_path, model_dir=tmp_path)

    return make


def save(job, step):
    with checkpoints.writing(job, step) as folder:
        (folder / "weights").write_text(f"of {step}")
    return job.output_dir / f"checkpoint-{step}"


def on_a_full_disk(folder):
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_found_again_with_its_step_and_content(job, tmp_path):
    folder = save(job(), 7)
    assert checkpoints.find(tmp_path) == checkpoints.find(folder) == folder == tmp_path / "checkpoint-7"
    assert checkpoints.step_of(folder) == 7
    assert (folder / "weights").read_text() == "of 7"


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o027, 0o077], ids=oct)
def test_others_may_read_it_as_the_umask_lets_them_read_all_else(job, umask):
    before = os.umask(umask)
    try:
        with checkpoints.writing(job(), 7) as folder:
            save_file({"weights": np.zeros(1)}, folder / "model.safetensors")
        folder = folder.parents[1] / folder.name
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        ("checkpoint.json", "model.safetensors"), 0o666 & ~umask
    )


def test_what_fails_while_it_is_written_leaves_nothing(job, tmp_path):
    with pytest.raises(ZeroDivisionError), checkpoints.writing(job(), 7) as folder:
        (folder / "weights").write_text(str(1 / 0))
    assert names(tmp_path) == []


def test_what_never_got_complete_is_not_resumed_from(job, tmp_path):
    save(job(), 9)
    (tmp_path / "checkpoint-10").mkdir()
    said = []
    assert checkpoints.find(tmp_path, said.append).name == "checkpoint-9"
    assert said == [
        f"{tmp_path}/checkpoint-10 has no checkpoint.json: it was never completed, or is damaged, and is not used"
    ]


def test_the_last_is_the_one_of_the_highest_number_and_not_of_the_last_letter(job, tmp_path):
    for step in (9, 10, 100, 20):
        save(job(save_total_limit=None), step)
    assert checkpoints.find(tmp_path).name == "checkpoint-100"


@pytest.mark.parametrize(("limit", "kept"), [(1, [40]), (2, [30, 40]), (None, [10, 20, 30, 40])])
def test_the_oldest_are_removed_beyond_the_limit(job, tmp_path, limit, kept):
    for step in (10, 20, 30, 40):
        save(job(save_total_limit=limit), step)
    assert names(tmp_path) == [f"checkpoint-{step}" for step in kept]


def test_a_run_that_is_done_again_from_an_earlier_step_keeps_what_it_writes(job, tmp_path):
    for step in (10, 20, 30):
        save(job(save_total_limit=3), step)
    assert save(job(save_total_limit=1), 15).is_dir()
    assert names(tmp_path) == ["checkpoint-15", "checkpoint-20", "checkpoint-30"]


def test_writing_the_same_step_again_replaces_it(job, tmp_path):
    save(job(), 5)
    (tmp_path / "checkpoint-5" / "stray").touch()
    assert names(save(job(), 5)) == ["checkpoint.json", "weights"]


def test_the_steps_that_are_left_follow_the_checkpoint(job):
    assert checkpoints.check_continues(save(job(), 7), schedule(), backend="bigram") == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": 63}, "trained with blocks 64, this run has 63"),
        ({"data": "other"}, "trained on other text than there is in the data now"),
        ({"seed": 1}, "trained with seed 42, this run has 1"),
        ({"per_device_train_batch_size": 4}, "with train_batch_size 8, this run has 4: give --train-batch-size 8"),
        ({"gradient_accumulation_steps": 2}, "trained with train_batch_size 8, this run has 16"),
        ({"train_batch_size": 9}, "trained with train_batch_size 8, this run has 9"),
        ({"max_steps": 6}, "has made 7 steps, more than the 6 of this training: raise --max-steps"),
    ],
    ids=str,
)
def test_a_run_with_other_blocks_or_another_order_cannot_go_on_from_it(job, change, message):
    with pytest.raises(ModelError, match=message):
        checkpoints.check_continues(save(job(), 7), schedule(**change), backend="bigram")


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_a_run_goes_on_from_it_in_smaller_batches_of_the_same_steps(job, batch):
    smaller = schedule(per_device_train_batch_size=batch, gradient_accumulation_steps=8 // batch)
    assert checkpoints.check_continues(save(job(), 7), smaller, backend="bigram") == 7


def test_a_checkpoint_of_an_earlier_clm_tells_the_two_factors_of_a_step(job):
    marker = save(job(), 7) / checkpoints.MARKER
    said = json.loads(marker.read_text())
    del said["files"], said["sha256"]
    said |= {"per_device_train_batch_size": said.pop("train_batch_size") // 2, "gradient_accumulation_steps": 2}
    marker.write_text(json.dumps(said))
    assert checkpoints.check_continues(marker.parent, schedule(), backend="bigram") == 7


def test_the_job_hears_that_it_was_saved_when_all_of_it_is_there(job, tmp_path):
    heard = []
    saving = replace(job(), report=lambda event: heard.append((event.step, checkpoints.list_complete(tmp_path))))
    assert heard == [(7, [save(saving, 7)])]


def test_another_backend_cannot_go_on_from_it_but_may_take_its_weights(job):
    with pytest.raises(ModelError, match=r"--backend bigram, or start .* --model-name-or-path .*checkpoint-7"):
        checkpoints.check_continues(save(job(), 7), schedule(), backend="pt")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"step": "many", "backend": "bigram"}'])
def test_a_damaged_marker_is_reported_as_such(job, content):
    folder = save(job(), 7)
    (folder / "checkpoint.json").write_text(content)
    with pytest.raises(ModelError, match=r"checkpoint.json is damaged"):
        checkpoints.check_continues(folder, schedule(), backend="bigram")


def test_a_place_without_a_checkpoint_is_refused_with_what_is_there(tmp_path):
    with pytest.raises(ModelError, match="there is no folder"):
        checkpoints.find(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="neither a checkpoint nor a run with a checkpoint"):
        checkpoints.find(tmp_path)
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(ModelError, match="checkpoint-3 never completed"):
        checkpoints.find(tmp_path)


def test_the_marker_tells_a_reader_what_the_checkpoint_is_of(job):
    record = json.loads((save(job(), 7) / "checkpoint.json").read_text())
    assert (record["step"], record["backend"], record["seed"], record["blocks"]) == (7, "bigram", 42, 64)


def moments(size, updates):
    return checkpoints.Moments(np.full(size, 0.5, np.float32), np.full(size, 0.25, np.float32), updates)


STATES = {"model.weight": moments((2, 3), 7), "model.expert": moments((4,), 2), "model.scale": moments((), 7)}
SHAPES = {name: state.first.shape for name, state in STATES.items()} | {"model.unused": (5,)}


def test_moments_come_back_with_their_updates_and_what_had_none_without(job):
    folder = save(job(), 7)
    checkpoints.write_moments(folder, {**STATES, "model.unused": None})
    found = checkpoints.read_moments(folder, SHAPES)
    assert found.pop("model.unused") is None
    for name, state in found.items():
        np.testing.assert_array_equal(state.first, STATES[name].first)
        np.testing.assert_array_equal(state.second, STATES[name].second)
    assert {name: state.updates for name, state in found.items()} == {
        "model.weight": 7,
        "model.expert": 2,
        "model.scale": 7,
    }


def test_moments_of_an_earlier_clm_which_counted_no_updates_had_one_at_every_step(job):
    folder = save(job(), 7)
    save_file({f"{kind}.weight": np.ones((2, 2), np.float32) for kind in "mv"}, folder / checkpoints.MOMENTS)
    assert checkpoints.read_moments(folder, {"weight": (2, 2)})["weight"].updates == 7


@pytest.mark.parametrize("lost", ["t.model.unused", "m.model.expert", "v.model.weight", "t.model.scale"])
def test_moments_that_are_not_all_there_are_refused_by_name(job, lost):
    folder = save(job(), 7)
    checkpoints.write_moments(folder, {**STATES, "model.unused": None})
    tensors = load_file(folder / checkpoints.MOMENTS)
    del tensors[lost]
    save_file(tensors, folder / checkpoints.MOMENTS)
    with pytest.raises(ModelError, match=r"does not belong to this model: only one of them has [mvt]\.model"):
        checkpoints.read_moments(folder, SHAPES)


def test_a_checkpoint_without_its_moments_is_refused_by_the_name_of_the_file(job):
    with pytest.raises(ModelError, match=rf"checkpoint-7 lacks {checkpoints.MOMENTS}: use another checkpoint"):
        checkpoints.read_moments(save(job(), 7), SHAPES)


def test_a_checkpoint_proves_every_file_that_the_backend_and_the_core_wrote(job):
    folder = save(replace(job(), add_to_checkpoint=lambda written: (written / "more").touch()), 7)
    assert sorted(json.loads((folder / "checkpoint.json").read_text())["files"]) == ["more", "weights"]
    assert checkpoints.faults(folder) == []


def test_the_newest_whole_one_is_used_and_a_damaged_one_is_named(job, tmp_path):
    for step in (5, 7, 9):
        save(job(save_total_limit=None), step)
    (tmp_path / "checkpoint-9" / "weights").write_text("of 8")
    (tmp_path / "checkpoint-7").rename(tmp_path / "checkpoint-8")
    said = []
    assert checkpoints.find(tmp_path, said.append).name == "checkpoint-5"
    assert "checkpoint-9 is damaged: weights does not match its checksum" in said[0]
    assert "checkpoint-8 is damaged: checkpoint.json is of step 7" in said[1]


def test_a_later_one_is_used_where_only_the_end_of_the_runs_history_is_lost(job, tmp_path):
    lines = ["1\n", "2\n", "3\n"]
    for step in (1, 2, 3):
        add = lambda folder, step=step: (folder / "history.jsonl").write_text("".join(lines[:step]))  # noqa: E731
        save(replace(job(save_total_limit=None), add_to_checkpoint=add), step)
    (tmp_path / "history.jsonl").write_text("1\n2\n3")
    assert checkpoints.find(tmp_path).name == "checkpoint-3"
    (tmp_path / "history.jsonl").write_text("1\n2\nother\n")
    said = []
    assert checkpoints.find(tmp_path, said.append).name == "checkpoint-2"
    assert "history.jsonl leads to: checkpoint-3 is not used, but checkpoint-2" in said[0]


def test_one_without_its_marker_is_refused_where_it_is_named(job, tmp_path):
    (save(job(), 7) / "checkpoint.json").unlink()
    with pytest.raises(ModelError, match=r"checkpoint-7 has no checkpoint\.json: it was never completed"):
        checkpoints.find(tmp_path / "checkpoint-7")


def test_a_damaged_one_that_is_named_is_refused(job):
    folder = save(job(), 7)
    (folder / "weights").unlink()
    with pytest.raises(ModelError, match="checkpoint-7 is damaged: weights is missing: use another"):
        checkpoints.find(folder)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_with_all_of_them(job, tmp_path):
    for step in (5, 7):
        (save(job(), step) / "checkpoint.json").write_text("{")
    with pytest.raises(ModelError, match=r"checkpoint-7 is damaged.*checkpoint-5 is damaged.*--overwrite-output-dir"):
        checkpoints.find(tmp_path)


@pytest.mark.parametrize(
    ("there", "given_up", "limit"),
    [([10, 20], [10], 2), ([10], [], 1), ([10, 20, 30], [10], 3), ([10, 20], [], 3), ([10, 20], [], None)],
)
def test_on_a_full_disk_those_go_first_that_would_go_next_but_never_the_last_whole_one(
    job, tmp_path, there, given_up, limit
):
    for step in there:
        save(job(save_total_limit=None), step)
    found = []

    def write(folder):
        found.append(names(tmp_path))
        on_a_full_disk(folder)

    with pytest.raises(DiskFullError, match=r"the disk is full: .*checkpoint-40: free"):
        checkpoints.save(job(save_total_limit=limit), 40, write)
    kept = [f"checkpoint-{step}" for step in there if step not in given_up]
    assert [name for name in found[-1] if not name.startswith(".")] == kept == names(tmp_path)
    assert len(found) == (2 if given_up else 1)


def test_checkpoints_that_may_be_damaged_go_before_the_one_that_the_training_resumed_from(job, tmp_path):
    for step in (10, 20):
        save(job(save_total_limit=None), step)
    resumed = replace(job(save_total_limit=2), whole={10})
    with pytest.raises(DiskFullError):
        checkpoints.save(resumed, 30, on_a_full_disk)
    assert names(tmp_path) == ["checkpoint-10"]
    save(job(save_total_limit=None), 20)
    save(resumed, 30)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-30"]


def test_the_best_is_neither_pruned_nor_given_up_on_a_full_disk(job, tmp_path):
    watched = replace(job(save_total_limit=1), best_step=lambda: 10)
    for step in (10, 20, 30):
        save(watched, step)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-30"]
    with pytest.raises(DiskFullError):
        checkpoints.save(watched, 40, on_a_full_disk)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-30"]


def test_one_that_is_linked_from_another_disk_is_read_and_only_its_link_is_removed(job, tmp_path):
    (tmp_path / "run").mkdir()
    here = replace(job(save_total_limit=1), output_dir=tmp_path / "run")
    folder = save(here, 7)
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    assert checkpoints.find(tmp_path / "run") == folder
    assert checkpoints.run_of(folder) == tmp_path / "run"
    save(here, 9)
    assert (names(tmp_path / "run"), names(tmp_path / "moved")) == (["checkpoint-9"], ["checkpoint.json", "weights"])
