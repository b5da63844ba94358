"""What every backend has to do, as tests."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clm_core import checkpoints
from clm_core.backend import Backend, Evaluated, Event, Saved, StepDone
from clm_core.config import EvaluateConfig
from clm_core.errors import ModelError
from clm_core.testing import chances, hub_cache, masks, probes, recorded
from clm_core.testing.applying import comparable, incomparable, leave_out, takes, where
from clm_core.testing.dtypes import DtypeContract
from clm_core.testing.parallel import ParallelContract
from clm_core.testing.parts import PartsContract
from clm_core.testing.resuming import ResumingContract
from clm_core.testing.shared import INTERRUPTED_AT, MODEL_SEED, Shared
from clm_core.testing.tiny import (
    BLOCK_SIZE,
    VALIDATION_BLOCKS,
    VOCABULARY,
    first_weights,
    read_weights,
    shapes,
    tiny_gpt2,
    tiny_model,
    validation_blocks,
    write_in_shards,
    write_model,
)
from clm_core.testing.trace import PROMPT, evaluate, expected, generate, logits, losses, reported, run


class BackendContract(PartsContract, ResumingContract, DtypeContract, ParallelContract):
    """What every backend has to do; the methods are tests, and need nothing but `backend`."""

    backend: ClassVar[Backend]

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "backend"):
            leave_out(cls)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Name the probes and the recorded runs that this backend needs and can have."""
        named = {"probe": probes.of_training, "text_probe": probes.of_generation, "numbers": probes.recorded_runs}
        named |= {"memory_option": probes.of_memory, "resumed": probes.resumed_runs}
        named["optimizer"] = probes.by_another_optimizer
        for argument in named.keys() & set(metafunc.fixturenames):
            metafunc.parametrize(argument, named[argument](self.backend))

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, tmp_path_factory: pytest.TempPathFactory) -> Shared:
        """Runs and texts that several tests look at."""
        return Shared(cls.backend, lambda: tmp_path_factory.mktemp("shared"))

    # What is declared.

    def test_is_found_under_its_name(self) -> None:
        (point,) = metadata.entry_points(group="clm.backends", name=self.backend.name)
        assert point.load() is type(self.backend)

    def test_is_loaded_without_its_framework(self) -> None:
        modules = _modules_of(self.backend)
        code = f"import sys, {type(self.backend).__module__}; print([m for m in {modules!r} if m in sys.modules])"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"

    def test_says_why_an_option_is_refused(self) -> None:
        of_training = {*probes.TRAINING_PROBES, *probes.SCHEDULED, *probes.MEMORY_OPTIONS}
        named = {name.partition("=")[0] for name in self.backend.unsupported}
        assert named <= {*of_training, *probes.SAMPLING_PROBES}
        assert all(self.backend.unsupported.values())

    def test_reads_each_option_of_its_own(self, shared: Shared) -> None:
        job = shared.baseline.job
        in_training = type(job.options).reads.copy()  # With what `check` reads, with which it begins.
        self.backend.check(job)
        in_check = type(job.options).reads - in_training
        assert {it.name for it in fields(job.options) if in_training[it.name] <= in_check[it.name]} == set()

    # The steps of a training.

    def test_steps_evaluations_and_checkpoints_come_as_scheduled_and_in_this_order(self, shared: Shared) -> None:
        run = shared.baseline
        assert reported(run.events) == expected(run.job)
        saved = [event.path for event in run.of(Saved)]
        assert checkpoints.list_complete(run.job.output_dir) == saved[-(run.job.config.save_total_limit or 0) :]

    def test_the_same_options_give_the_same_run(self, shared: Shared) -> None:
        steps = len(shared.interrupted.events)
        assert shared.interrupted.of(StepDone)[-1].step == INTERRUPTED_AT
        assert _without_paths(shared.interrupted.events) == _without_paths(shared.baseline.events[:steps])

    def test_an_option_of_the_training_changes_the_run(self, probe: str, shared: Shared) -> None:
        before, after = probes.TRAINING_PROBES[probe]
        assert shared.run(**after).facts() != shared.run(**before).facts()

    @where(lambda backend: bool(probes.of_memory(backend)))
    def test_an_option_that_saves_memory_changes_no_number(self, memory_option: str, shared: Shared) -> None:
        usual, lean = shared.baseline, shared.run(**{memory_option: probes.MEMORY_OPTIONS[memory_option]})
        assert losses(lean) == pytest.approx(losses(usual), rel=1e-6)

    @takes("max_grad_norm")
    def test_a_norm_of_0_clips_no_gradient(self, shared: Shared) -> None:
        assert losses(shared.run(max_grad_norm=0.0)) == losses(shared.run(max_grad_norm=1e30))

    @takes("bf16")
    def test_bf16_is_for_training_and_for_evaluation(self, shared: Shared) -> None:
        usual, changed = shared.baseline, shared.run(bf16=True)
        assert losses(changed)[0] != losses(usual)[0]
        assert changed.of(Evaluated)[0].score.loss_sum != usual.of(Evaluated)[0].score.loss_sum
        assert evaluate(self.backend, usual, config=EvaluateConfig(bf16=True)).loss_sum != shared.score.loss_sum

    def test_a_report_that_raises_ends_the_training_before_anything_is_saved(self, shared: Shared) -> None:
        job = shared.interrupted.job
        assert reported(shared.interrupted.events)[-1] == ("StepDone", INTERRUPTED_AT)
        found = [int(path.name.removeprefix("checkpoint-")) for path in job.output_dir.glob("checkpoint-*")]
        assert max(found, default=0) < INTERRUPTED_AT
        assert list(job.model_dir.iterdir()) == []

    def test_training_lowers_the_loss(self, shared: Shared) -> None:
        first, *_, last = shared.baseline.of(Evaluated)
        assert last.score.loss < first.score.loss - 0.05

    @incomparable
    def test_a_training_starts_from_weights_that_were_written(self, tmp_path: Path, shared: Shared) -> None:
        again = run(self.backend, tmp_path, model=tiny_model(str(shared.baseline.job.model_dir)))
        assert again.of(Evaluated)[0].score.loss == pytest.approx(shared.score.loss, rel=1e-6)

    def test_a_training_of_no_steps_writes_the_weights_that_it_would_begin_with(self, shared: Shared) -> None:
        before = shared.baseline.of(Evaluated)[0].score
        assert evaluate(self.backend, shared.untrained).loss == pytest.approx(before.loss, rel=1e-6)

    @incomparable
    @takes("gradient_accumulation_steps")
    @pytest.mark.parametrize(("batch", "accumulation"), [(1, 8), (2, 4), (4, 2)])
    def test_a_step_is_the_same_however_its_blocks_are_accumulated(
        self, batch: int, accumulation: int, shared: Shared
    ) -> None:
        whole = shared.run(per_device_train_batch_size=8)
        parts = shared.run(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
        assert losses(parts) == pytest.approx(losses(whole), rel=1e-6)

    @comparable
    def test_the_numbers_are_those_of_the_other_backends(self, numbers: str, shared: Shared) -> None:
        recorded.check(shared.recorded(numbers), numbers)

    @comparable
    @pytest.mark.parametrize("kind", masks.SITES)
    def test_each_dropout_has_masks_of_its_own_and_keeps_the_mean(self, kind: str, tmp_path: Path) -> None:
        assert masks.follow(self.backend, kind, tmp_path).faults() == []

    # What is written, and read.

    @comparable
    def test_a_new_model_has_the_first_weights_of_the_core(self, shared: Shared) -> None:
        job = shared.untrained.job
        drawn, found = first_weights(job.model.architecture, seed=MODEL_SEED), read_weights(job.model_dir)
        assert sorted(found) == sorted(drawn)
        for name, array in drawn.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)

    @comparable
    def test_models_and_checkpoints_are_folders_of_transformers_with_pytorchs_names(self, shared: Shared) -> None:
        from transformers import AutoConfig, GenerationConfig

        job = shared.baseline.job
        for folder in (job.model_dir, shared.baseline.of(Saved)[-1].path):
            config = AutoConfig.from_pretrained(folder)
            assert (config.model_type, config.n_embd, config.architectures) == ("gpt2", 16, ["GPT2LMHeadModel"])
            assert GenerationConfig.from_pretrained(folder).eos_token_id == 0
            found = {name: (array.dtype.name, array.shape) for name, array in read_weights(folder).items()}
            assert found == {name: ("float32", shape) for name, shape in shapes(job.model.architecture).items()}

    def test_the_model_that_is_written_scores_as_the_last_evaluation_did(self, shared: Shared) -> None:
        written, last = shared.score, shared.baseline.of(Evaluated)[-1].score
        assert written.loss_sum == pytest.approx(last.loss_sum, rel=1e-6)
        assert (written.correct, written.tokens) == (last.correct, VALIDATION_BLOCKS * (BLOCK_SIZE - 1))

    def test_tensors_that_a_model_has_no_use_for_are_refused_unless_it_is_to_ignore_them(
        self, tmp_path: Path, shared: Shared
    ) -> None:
        folder = shutil.copytree(shared.baseline.job.model_dir, tmp_path / "model")
        tensors = load_file(folder / "model.safetensors") | {"adapter.lora_A.weight": np.zeros(3, np.float32)}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        model = tiny_model(str(folder))
        with pytest.raises(ModelError, match=r"adapter\.lora_A\.weight"):
            evaluate(self.backend, model=model)
        assert evaluate(self.backend, model=replace(model, ignore_unused_weights=True)) == shared.score

    @comparable
    def test_weights_that_are_not_all_there_are_refused_by_name(self, tmp_path: Path) -> None:
        weights = first_weights(tiny_gpt2(), seed=1)
        del weights["transformer.h.1.mlp.c_fc.weight"]
        with pytest.raises(ModelError, match=r"h\.1\.mlp\.c_fc\.weight"):
            evaluate(self.backend, model=write_model(tmp_path, tiny_gpt2(), weights))

    @comparable
    @pytest.mark.parametrize("value", [math.nan, -math.inf])
    def test_weights_that_are_not_finite_are_refused_by_name(self, value: float, tmp_path: Path) -> None:
        weights = first_weights(tiny_gpt2(), seed=1)
        weights["transformer.h.1.mlp.c_fc.weight"][3, 2] = value
        model = write_model(tmp_path / "model", tiny_gpt2(), weights)
        for use in (evaluate, generate):
            with pytest.raises(ModelError, match=rf"h\.1\.mlp\.c_fc\.weight has the value {value}"):
                use(self.backend, model=model)
        with pytest.raises(ModelError, match=r"h\.1\.mlp\.c_fc\.weight"):
            run(self.backend, tmp_path / "run", model=model)

    @comparable
    def test_weights_that_break_off_are_refused(self, tmp_path: Path) -> None:
        model = recorded.write_checkpoint(tmp_path)
        file = tmp_path / "model.safetensors"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(ModelError):
            evaluate(self.backend, model=model)

    @comparable
    def test_weights_are_read_from_shards_and_from_half_precision(self, tmp_path: Path) -> None:
        model = recorded.write_checkpoint(tmp_path / "whole")
        halves = {name: array.astype(np.float16) for name, array in read_weights(tmp_path / "whole").items()}
        found = evaluate(self.backend, model=write_in_shards(tmp_path / "parts", model.architecture, halves))
        assert found.loss == pytest.approx(recorded.first_evaluation(), rel=1e-4)

    @comparable
    def test_weights_are_those_of_the_revision(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = evaluate(self.backend, model=hub_cache.write(tmp_path, monkeypatch))
        assert found.loss == pytest.approx(recorded.first_evaluation(), rel=1e-6)

    # Scores.

    def test_a_score_is_the_sum_of_the_scores_of_its_parts(self, shared: Shared) -> None:
        blocks, run = validation_blocks(), shared.baseline
        parts = evaluate(self.backend, run, blocks[:2]) + evaluate(self.backend, run, blocks[2:])
        assert parts.loss_sum == pytest.approx(shared.score.loss_sum, rel=1e-6)
        assert (parts.correct, parts.tokens) == (shared.score.correct, shared.score.tokens)

    @comparable
    def test_the_logits_have_the_loss_and_the_hits_of_the_score(self, shared: Shared) -> None:
        blocks = validation_blocks()
        found = logits(self.backend, tiny_model(str(shared.baseline.job.model_dir)), blocks)
        assert (found.dtype.name, found.shape) == ("float32", (*blocks.shape, VOCABULARY))
        predicted, targets = found[:, :-1].astype(np.float64), blocks[:, 1:].astype(np.int64)
        likelihoods = predicted - np.log(np.exp(predicted).sum(-1, keepdims=True))
        chosen = np.take_along_axis(likelihoods, targets[..., None], -1)
        assert -chosen.sum() == pytest.approx(shared.score.loss_sum, rel=1e-6)
        assert 0 < shared.score.correct == int((predicted.argmax(-1) == targets).sum())

    # Texts.

    def test_an_option_of_the_generation_changes_the_text(self, text_probe: str, shared: Shared) -> None:
        before, after = probes.SAMPLING_PROBES[text_probe]
        assert shared.text(**after) != shared.text(**before)

    def test_greedy_text_is_made_of_known_tokens_and_is_always_the_same(self, shared: Shared) -> None:
        ids = shared.text()
        assert all(0 <= token < VOCABULARY for token in ids)
        assert (len(ids), generate(self.backend, shared.baseline)) == (12, ids)

    @takes("do_sample", "seed")
    def test_a_seed_draws_the_same_text_again(self, shared: Shared) -> None:
        options: dict[str, Any] = {"do_sample": True, "top_k": 0, "seed": 7}
        assert generate(self.backend, shared.baseline, **options) == shared.text(**options)

    @comparable
    @pytest.mark.parametrize("prompt", [PROMPT, (60,)], ids=["some tokens", "one token"])
    def test_greedy_text_is_the_likeliest_by_the_logits(self, prompt: tuple[int, ...], shared: Shared) -> None:
        model, ids = tiny_model(str(shared.baseline.job.model_dir)), shared.text(prompt=prompt)
        found = logits(self.backend, model, np.array([[*prompt, *ids]], np.uint16))
        assert found[0, len(prompt) - 1 : -1].argmax(-1).tolist() == ids

    def test_generation_ends_with_any_end_of_sequence_token(self, shared: Shared) -> None:
        first = shared.text()[0]
        for ends in ((first,), (VOCABULARY - 1, first), (first, VOCABULARY - 1)):
            assert generate(self.backend, shared.baseline, eos_token_ids=ends) == [first]

    @comparable
    @takes("do_sample", "top_k", "top_p", "temperature")
    @pytest.mark.parametrize("name", chances.DRAWN)
    def test_tokens_are_drawn_with_the_chances_that_the_options_say(self, name: str, tmp_path: Path) -> None:
        kind, options, power, kept = chances.DRAWN[name]
        model = chances.write(tmp_path, kind)
        settings = {"max_new_tokens": chances.DRAWS, "do_sample": True, **options}
        ids = generate(self.backend, model=model, prompt=(3,), **settings)
        assert len(ids) == chances.DRAWS
        assert chances.faults(ids, kind, power, kept) == []


def _without_paths(events: list[Event]) -> list[Event]:
    return [replace(event, path=Path()) if isinstance(event, Saved) else event for event in events]


def _modules_of(backend: Backend) -> list[str]:
    """The top-level modules of the distributions that the backend requires."""
    from packaging.requirements import Requirement

    required = {Requirement(line).name.lower().replace("_", "-") for line in backend.requires}
    found: Iterator[tuple[str, list[str]]] = iter(metadata.packages_distributions().items())
    return sorted(module for module, names in found if required & {name.lower().replace("_", "-") for name in names})
