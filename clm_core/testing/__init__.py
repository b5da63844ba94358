"""The suite that a backend's author runs: subclass `BackendContract`, name the backend, and let pytest collect it.

    from clm_core.testing import BackendContract

    class TestMyBackend(BackendContract):
        backend = MyBackend()

It needs pytest and transformers, and no network. Every run is a few steps of a tiny model.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from clm_core import checkpoints
from clm_core.backend import (
    Backend,
    BatchScored,
    Blocks,
    Evaluated,
    EvaluationJob,
    Event,
    GenerationJob,
    Model,
    Report,
    Saved,
    Score,
    StepDone,
    TrainingJob,
)
from clm_core.config import EvaluateConfig, SamplingOptions, TrainConfig
from clm_core.errors import ModelError, TrainingError
from clm_core.options import Given, build
from clm_core.schedule import Schedule
from clm_core.testing import recorded

VOCABULARY, BLOCK_SIZE, TRAINING_BLOCKS, VALIDATION_BLOCKS = recorded.VOCABULARY, 16, 18, 6

Changes = tuple[Mapping[str, Any], Mapping[str, Any]]

TRAINING_PROBES: dict[str, Changes] = {
    "seed": ({}, {"seed": 7}),
    "num_train_epochs": ({"max_steps": -1, "num_train_epochs": 0.5}, {"max_steps": -1, "num_train_epochs": 1.0}),
    "max_steps": ({}, {"max_steps": 3}),
    "per_device_train_batch_size": ({}, {"per_device_train_batch_size": 2}),
    "gradient_accumulation_steps": ({}, {"gradient_accumulation_steps": 2}),
    "dataloader_drop_last": (
        {"max_steps": -1, "num_train_epochs": 1},
        {"max_steps": -1, "num_train_epochs": 1, "dataloader_drop_last": True},
    ),
    "learning_rate": ({}, {"learning_rate": 1e-3}),
    "lr_scheduler_type": ({}, {"lr_scheduler_type": "cosine"}),
    "warmup_steps": ({}, {"warmup_steps": 2}),
    "warmup_ratio": ({}, {"warmup_ratio": 0.5}),
    "weight_decay": ({}, {"weight_decay": 0.5}),
    "adam_beta1": ({}, {"adam_beta1": 0.5}),
    "adam_beta2": ({}, {"adam_beta2": 0.9}),
    "adam_epsilon": ({}, {"adam_epsilon": 1e-2}),
    "max_grad_norm": ({}, {"max_grad_norm": 0.1}),
    "bf16": ({}, {"bf16": True}),
    "per_device_eval_batch_size": ({}, {"per_device_eval_batch_size": 2}),
    "eval_strategy": ({}, {"eval_strategy": "no"}),
    "eval_steps": ({"eval_strategy": "steps", "eval_steps": 1}, {"eval_strategy": "steps", "eval_steps": 2}),
    "save_strategy": ({}, {"save_strategy": "steps", "save_steps": 1}),
    "save_steps": ({"save_strategy": "steps", "save_steps": 1}, {"save_strategy": "steps", "save_steps": 3}),
    "save_total_limit": (
        {"save_strategy": "steps", "save_steps": 1},
        {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1},
    ),
}
"""For each training option that a backend implements: two settings whose runs cannot be the same."""

SAMPLING_PROBES: dict[str, Changes] = {
    "max_new_tokens": ({}, {"max_new_tokens": 5}),
    "do_sample": ({}, {"do_sample": True}),
    "top_k": ({"do_sample": True, "top_k": 0}, {"do_sample": True, "top_k": 1}),
    "top_p": ({"do_sample": True, "top_k": 0}, {"do_sample": True, "top_k": 0, "top_p": 0.01}),
    "temperature": ({"do_sample": True, "top_k": 0}, {"do_sample": True, "top_k": 0, "temperature": 0.01}),
    "seed": ({"do_sample": True, "top_k": 0}, {"do_sample": True, "top_k": 0, "seed": 7}),
}
"""The same for the options of a generation."""

CORE_OPTIONS = {
    *("model_name_or_path", "model_revision", "tokenizer_name", "config_name", "model_type", "config_overrides"),
    *("dataset_name", "dataset_config_name", "dataset_split", "revision", "streaming", "train_file", "validation_file"),
    *("validation_split_percentage", "text_column", "sample_by", "max_train_samples", "max_train_tokens"),
    *("max_eval_samples", "block_size", "append_eos", "packing"),
    *("preprocessing_num_workers", "prepared", "overwrite_cache"),
    *("json_field", "csv_delimiter", "encoding"),
    *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "output_file", "logging_steps", "report_to"),
    *("push_to_hub", "hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy", "hub_offline", "hub_license"),
}
"""The options that the core implements, before and after it calls a backend."""

MODEL_OPTIONS = {"ignore_unused_weights"}
"""Those that come with the model; each has a test below."""


@dataclass
class Trace:
    """What a training did, as far as its job can tell."""

    job: TrainingJob | None = None
    events: list[Event] = field(default_factory=list)

    def of(self, kind: type) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if type(event) is kind]

    def facts(self) -> list[Any]:
        """What two runs have in common if and only if they are the same."""
        assert self.job
        folder = self.job.output_dir
        kept = [path.name for path in checkpoints.list_complete(folder)]
        saved = [event.step for event in self.of(Saved)]
        return [self.of(StepDone), self.of(Evaluated), self.of(BatchScored), saved, kept]


class BackendContract:
    """What holds for every backend; the methods are tests, and need nothing but `backend`."""

    backend: ClassVar[Backend]

    @pytest.fixture(scope="class")
    @classmethod
    def baseline(cls, tmp_path_factory: pytest.TempPathFactory) -> Trace:
        """A run with no option changed, which many others are compared with."""
        return run(cls.backend, tmp_path_factory.mktemp("baseline"))

    @pytest.fixture(scope="class")
    @classmethod
    def in_one_batch(cls, tmp_path_factory: pytest.TempPathFactory) -> Trace:
        """A run without dropout, eight blocks in a batch."""
        model = tiny_model(None, dropout=0.0)
        return run(cls.backend, tmp_path_factory.mktemp("whole"), model=model, per_device_train_batch_size=8)

    def test_is_found_under_its_name(self) -> None:
        (point,) = metadata.entry_points(group="clm.backends", name=self.backend.name)
        assert point.load() is type(self.backend)

    def test_is_loaded_without_its_framework(self) -> None:
        modules = _modules_of(self.backend)
        code = f"import sys, {type(self.backend).__module__}; print([m for m in {modules!r} if m in sys.modules])"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"

    def test_says_why_an_option_is_refused(self) -> None:
        known = set(TRAINING_PROBES) | set(SAMPLING_PROBES)
        assert set(self.backend.unsupported) <= known
        assert all(self.backend.unsupported.values())

    @pytest.mark.parametrize("name", TRAINING_PROBES)
    def test_an_option_of_the_training_changes_the_run_or_is_refused(
        self, name: str, tmp_path: Path, baseline: Trace
    ) -> None:
        if name in self.backend.unsupported:
            return
        before, after = TRAINING_PROBES[name]
        usual = run(self.backend, tmp_path / "usual", **before) if before else baseline
        assert run(self.backend, tmp_path / "changed", **after).facts() != usual.facts()

    @pytest.mark.parametrize("name", SAMPLING_PROBES)
    def test_an_option_of_the_generation_changes_the_text_or_is_refused(self, name: str, baseline: Trace) -> None:
        if name in self.backend.unsupported:
            return
        before, after = SAMPLING_PROBES[name]
        assert generate(self.backend, baseline, **after) != generate(self.backend, baseline, **before)

    def test_the_same_options_give_the_same_run(self, tmp_path: Path, baseline: Trace) -> None:
        assert run(self.backend, tmp_path).facts() == baseline.facts()

    def test_steps_validations_and_checkpoints_come_as_scheduled_and_in_this_order(self, tmp_path: Path) -> None:
        options: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 3}
        trace = run(self.backend, tmp_path, max_steps=4, **options)
        order = [(type(event), event.step) for event in trace.events if not isinstance(event, BatchScored)]
        first = [(Evaluated, 0), (StepDone, 1), (StepDone, 2), (Evaluated, 2)]
        assert order == [*first, (StepDone, 3), (Saved, 3), (StepDone, 4), (Evaluated, 4), (Saved, 4)]

    def test_a_report_that_raises_ends_the_training_before_anything_is_saved(self, tmp_path: Path) -> None:
        def refuse(event: Event) -> None:
            if isinstance(event, StepDone):
                raise TrainingError("enough")

        with pytest.raises(TrainingError, match="enough"):
            run(self.backend, tmp_path, report=refuse, save_strategy="steps", save_steps=1)
        assert checkpoints.list_complete(tmp_path) == []

    def test_training_lowers_the_loss(self, tmp_path: Path) -> None:
        trace = run(self.backend, tmp_path, max_steps=30)
        first, last = trace.of(Evaluated)[0].score, trace.of(Evaluated)[-1].score
        assert last.loss < first.loss - 0.05

    def test_the_model_that_is_written_scores_as_the_last_validation_did(self, baseline: Trace) -> None:
        written, last = evaluate(self.backend, baseline), baseline.of(Evaluated)[-1].score
        assert written.loss_sum == pytest.approx(last.loss_sum, rel=1e-6)
        assert (written.correct, written.tokens) == (last.correct, VALIDATION_BLOCKS * (BLOCK_SIZE - 1))

    def test_a_score_is_the_sum_of_the_scores_of_its_parts(self, baseline: Trace) -> None:
        blocks = validation_blocks()
        parts = evaluate(self.backend, baseline, blocks[:2]) + evaluate(self.backend, baseline, blocks[2:])
        whole = evaluate(self.backend, baseline, blocks)
        assert parts.loss_sum == pytest.approx(whole.loss_sum, rel=1e-6)
        assert (parts.correct, parts.tokens) == (whole.correct, whole.tokens)

    def test_a_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened(self, tmp_path: Path) -> None:
        saving: dict[str, Any] = {
            "max_steps": 8,
            "save_strategy": "steps",
            "save_steps": 3,
            "save_total_limit": 9,
        }
        whole = run(self.backend, tmp_path / "whole", **saving)
        rest = run(self.backend, tmp_path / "rest", resume_from=tmp_path / "whole" / "checkpoint-3", **saving)
        assert rest.of(StepDone) == whole.of(StepDone)[3:]
        assert rest.of(Evaluated)[-1] == whole.of(Evaluated)[-1]

    def test_a_training_starts_from_weights_that_were_written(self, tmp_path: Path, baseline: Trace) -> None:
        assert baseline.job
        trace = run(self.backend, tmp_path, model=tiny_model(str(baseline.job.model_dir)))
        assert trace.of(Evaluated)[0].score.loss == pytest.approx(baseline.of(Evaluated)[-1].score.loss, rel=1e-6)

    def test_tensors_that_a_model_has_no_use_for_are_refused_unless_it_is_to_ignore_them(
        self, tmp_path: Path, baseline: Trace
    ) -> None:
        from safetensors.numpy import load_file, save_file

        assert baseline.job
        folder = shutil.copytree(baseline.job.model_dir, tmp_path / "model")
        file = folder / "model.safetensors"
        save_file(
            {**load_file(file), "adapter.lora_A.weight": np.zeros(3, np.float32)}, file, metadata={"format": "pt"}
        )
        model = tiny_model(str(folder))
        with pytest.raises(ModelError, match=r"adapter\.lora_A\.weight"):
            evaluate(self.backend, baseline, model=model)
        kept = evaluate(self.backend, baseline, model=replace(model, ignore_unused_weights=True))
        assert kept == evaluate(self.backend, baseline)

    def test_a_training_of_no_steps_writes_the_weights_that_it_would_begin_with(
        self, tmp_path: Path, baseline: Trace
    ) -> None:
        assert baseline.job
        nothing = replace(baseline.job.schedule, total_steps=0, eval_every=None)
        job = replace(baseline.job, schedule=nothing, output_dir=tmp_path, model_dir=tmp_path)
        self.backend.train(job)
        assert evaluate(self.backend, Trace(job)).loss == pytest.approx(baseline.of(Evaluated)[0].score.loss, rel=1e-6)

    @pytest.mark.parametrize(("batch", "accumulation"), [(1, 8), (2, 4), (4, 2)])
    def test_a_step_is_the_same_however_its_blocks_are_accumulated(
        self, batch: int, accumulation: int, tmp_path: Path, in_one_batch: Trace
    ) -> None:
        if "gradient_accumulation_steps" in self.backend.unsupported:
            return
        assert in_one_batch.job
        options: dict[str, Any] = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        parts = run(self.backend, tmp_path, model=in_one_batch.job.model, **options)
        assert losses(parts) == pytest.approx(losses(in_one_batch), rel=1e-6)

    @pytest.mark.parametrize("name", recorded.RUNS)
    def test_the_numbers_are_those_of_the_other_backends(self, name: str, tmp_path: Path) -> None:
        options = recorded.RUNS[name]
        if self.backend.incomparable or set(options) & set(self.backend.unsupported):
            return
        trace = run(self.backend, tmp_path, model=recorded.write_checkpoint(tmp_path / "start"), **options)
        found, expected = recorded.figures(trace.events), recorded.recorded()[name]
        assert found["losses"] == pytest.approx(expected["losses"], rel=2e-5)
        assert found["evaluations"] == pytest.approx(expected["evaluations"], rel=2e-5)
        assert found["evaluations"][0] == pytest.approx(expected["evaluations"][0], rel=1e-6)
        if None not in found["grad_norms"] + expected["grad_norms"]:  # Some have none where nothing is clipped.
            assert found["grad_norms"] == pytest.approx(expected["grad_norms"], rel=1e-3)

    def test_the_logits_have_the_loss_of_the_score(self, baseline: Trace) -> None:
        if self.backend.incomparable:
            return
        assert baseline.job
        model, blocks = tiny_model(str(baseline.job.model_dir)), validation_blocks()
        job = EvaluationJob(model=model, blocks=blocks, config=EvaluateConfig(), report=lambda event: None)
        logits = self.backend.logits(job)
        assert (logits.dtype.name, logits.shape) == ("float32", (*blocks.shape, VOCABULARY))
        predicted = logits[:, :-1].astype(np.float64)
        likelihoods = predicted - np.log(np.exp(predicted).sum(-1, keepdims=True))
        chosen = np.take_along_axis(likelihoods, blocks[:, 1:, None].astype(np.int64), -1)
        assert -chosen.sum() == pytest.approx(evaluate(self.backend, baseline).loss_sum, rel=1e-6)

    def test_greedy_text_is_made_of_known_tokens_and_is_always_the_same(self, baseline: Trace) -> None:
        ids = generate(self.backend, baseline)
        assert all(0 <= token < VOCABULARY for token in ids)
        assert (len(ids), generate(self.backend, baseline)) == (12, ids)

    def test_generation_ends_with_any_end_of_sequence_token(self, baseline: Trace) -> None:
        first = generate(self.backend, baseline)[0]
        for ends in ((first,), (VOCABULARY - 1, first), (first, VOCABULARY - 1)):
            assert generate(self.backend, baseline, eos_token_ids=ends) == [first]


def run(
    backend: Backend,
    folder: Path,
    *,
    model: Model | None = None,
    resume_from: Path | None = None,
    report: Report = lambda event: None,
    **options: Any,
) -> Trace:
    """Train a tiny model for a few steps and return what happened."""
    settings: dict[str, Any] = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
    settings |= {
        "block_size": BLOCK_SIZE,
        "save_strategy": "no",
        "output_dir": str(folder),
        **options,
    }
    config = build(TrainConfig, [{name: Given(value, "the contract") for name, value in settings.items()}])
    (folder / "model").mkdir(parents=True)
    trace = Trace()

    def follow(event: Event) -> None:
        trace.events.append(event)
        report(event)

    trace.job = TrainingJob(
        model=model or tiny_model(None, seed=config.seed),
        train=training_blocks(),
        validation=validation_blocks(),
        schedule=Schedule.from_config(config, blocks=TRAINING_BLOCKS),
        config=config,
        options=backend.options(),
        output_dir=folder,
        model_dir=folder / "model",
        resume_from=resume_from,
        report=follow,
    )
    backend.train(trace.job)
    return trace


def losses(trace: Trace) -> list[float]:
    """The loss of each step of a run."""
    return [event.loss for event in trace.of(StepDone)]


def evaluate(backend: Backend, trace: Trace, blocks: Blocks | None = None, model: Model | None = None) -> Score:
    """Score blocks with the model that a run has written."""
    assert trace.job
    chosen = validation_blocks() if blocks is None else blocks
    events: list[Event] = []
    score = backend.evaluate(
        EvaluationJob(
            model=model or tiny_model(str(trace.job.model_dir)),
            blocks=chosen,
            config=EvaluateConfig(),
            report=events.append,
        )
    )
    assert sum(event.blocks for event in events if isinstance(event, BatchScored)) == len(chosen)
    return score


def generate(backend: Backend, trace: Trace, *, eos_token_ids: tuple[int, ...] = (), **options: Any) -> list[int]:
    """Continue a prompt with the model that a run has written."""
    assert trace.job
    config = SamplingOptions(**{"max_new_tokens": 12, **options})
    chosen = tiny_model(str(trace.job.model_dir))
    return list(
        backend.generate(GenerationJob(model=chosen, prompt=(3, 1, 4), eos_token_ids=eos_token_ids, config=config))
    )


def tiny_model(name_or_path: str | None, *, seed: int = 42, dropout: float = 0.1) -> Model:
    """A tiny GPT-2, from scratch or from a folder."""
    architecture = recorded.tiny_gpt2(dropout=dropout)
    return Model(name_or_path=name_or_path, revision="main", architecture=architecture, seed=seed)


def training_blocks() -> Blocks:
    """Blocks in which a token says much about the next one."""
    return _blocks(TRAINING_BLOCKS, seed=1)


def validation_blocks() -> Blocks:
    """More of the same."""
    return _blocks(VALIDATION_BLOCKS, seed=2)


def _blocks(count: int, *, seed: int) -> Blocks:
    # Raw bits, because NumPy keeps no other stream stable between versions (NEP 19), and numbers are recorded.
    bits = np.random.PCG64(seed).random_raw(count * BLOCK_SIZE).reshape(count, BLOCK_SIZE)
    steps = np.array([1] * 8 + [2, 5])[bits % 10]
    blocks: Blocks = (np.cumsum(steps, axis=1) % VOCABULARY).astype(np.uint16)
    blocks.flags.writeable = False  # As a memory map is.
    return blocks


def _modules_of(backend: Backend) -> list[str]:
    """The top-level modules of the distributions that the backend requires."""
    from packaging.requirements import Requirement

    required = {Requirement(line).name.lower().replace("_", "-") for line in backend.requires}
    found: Iterator[tuple[str, list[str]]] = iter(metadata.packages_distributions().items())
    return sorted(module for module, names in found if required & {name.lower().replace("_", "-") for name in names})
