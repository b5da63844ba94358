"""What every backend has to do with checkpoints, where it resumes and where it is asked to stop, as tests."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from clm_core import checkpoints
from clm_core.backend import Backend, BatchScored, Evaluated, Saved, StepDone
from clm_core.testing import probes, recorded
from clm_core.testing.applying import comparable, takes, where
from clm_core.testing.shared import FROM_THE_CORE, Shared
from clm_core.testing.tiny import read_weights, shapes
from clm_core.testing.trace import expected, reported, train

KEPT = {
    *(checkpoints.MARKER, checkpoints.MOMENTS, FROM_THE_CORE),
    *("model.safetensors", "config.json", "generation_config.json"),
}
"""All that may be in a checkpoint of the tiny model."""


class ResumingContract:
    """The part of the contract that is about it."""

    backend: ClassVar[Backend]

    @takes("save_strategy", "save_steps")
    def test_a_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened(self, shared: Shared) -> None:
        whole = shared.baseline
        rest = shared.run_again(resume_from=checkpoints.list_complete(whole.job.output_dir)[0])
        start = rest.job.first_step
        assert reported(rest.events) == expected(rest.job)
        assert rest.of(StepDone) == whole.of(StepDone)[start:]
        assert rest.of(Evaluated) == [event for event in whole.of(Evaluated) if event.step > start]

    @takes("save_strategy", "save_steps", "train_only")
    def test_parts_of_a_model_go_on_from_a_checkpoint_too(self, shared: Shared) -> None:
        parts = {"train_only": ("layers:-1", "*ln_*")}
        whole = shared.run(**parts)
        rest = shared.run_again(resume_from=checkpoints.list_complete(whole.job.output_dir)[0], **parts)
        assert rest.of(StepDone) == whole.of(StepDone)[rest.job.first_step :]

    @where(lambda backend: bool(probes.by_another_optimizer(backend)))
    def test_so_does_one_by_another_optimizer_than_adamw(self, optimizer: str, shared: Shared) -> None:
        whole = shared.recorded(optimizer)
        checkpoint = checkpoints.list_complete(whole.job.output_dir)[0]
        rest = train(self.backend, replace(whole.job, resume_from=checkpoint, output_dir=shared.new_folder()))
        assert rest.of(StepDone) == whole.of(StepDone)[recorded.SAVED_AT :]

    def test_a_checkpoint_has_no_random_state_and_no_pickle(self, shared: Shared) -> None:
        names = {path.name for event in shared.baseline.of(Saved)[-1:] for path in event.path.iterdir()}
        assert names <= KEPT

    @takes("save_strategy", "save_steps")
    def test_a_training_that_is_to_stop_saves_after_its_step_and_abandons_an_evaluation(self, shared: Shared) -> None:
        first, second, *_ = shared.in_parts
        assert reported(first.events)[-2:] == [("BatchScored", 4), ("Saved", 4)]
        assert reported(second.events)[-2:] == [("StepDone", 5), ("Saved", 5)]
        for part in shared.in_parts[:-1]:
            checkpoints.check_whole(part.of(Saved)[-1].path)
            assert list(part.job.model_dir.iterdir()) == []

    @takes("save_strategy", "save_steps")
    def test_parts_of_a_training_make_the_steps_and_evaluations_of_the_whole(self, shared: Shared) -> None:
        for kind in (StepDone, Evaluated):
            assert [event for part in shared.in_parts for event in part.of(kind)] == shared.baseline.of(kind)

    @takes("save_strategy", "save_steps")
    def test_a_training_without_a_step_to_make_evaluates_if_it_is_time_and_writes_its_weights(
        self, shared: Shared
    ) -> None:
        rest = shared.in_parts[-1]
        assert [type(event) for event in rest.events] == [BatchScored, BatchScored, Evaluated]
        wanted, written = (read_weights(run.job.model_dir) for run in (shared.baseline, rest))
        assert {name: array.tobytes() for name, array in written.items()} == {
            name: array.tobytes() for name, array in wanted.items()
        }

    @where(lambda backend: bool(probes.resumed_runs(backend)))
    def test_a_training_goes_on_from_a_checkpoint_of_another_backend(self, resumed: str, shared: Shared) -> None:
        recorded.check(shared.recorded(resumed), resumed)

    @comparable
    def test_moments_are_left_as_other_backends_read_them(self, shared: Shared) -> None:
        trace = shared.recorded(recorded.UNCLIPPED)
        parameters = shapes(trace.job.model.architecture)
        moments = checkpoints.read_moments(trace.of(Saved)[0].path, parameters)
        beta1, beta2 = trace.job.config.adam_beta1, trace.job.config.adam_beta2
        total = 0.0
        for name in parameters:
            state = moments[name]
            assert state is not None, name
            assert state.updates == 1
            gradient = state.first.astype(np.float64) / (1 - beta1)
            wanted = (1 - beta2) * np.square(gradient)
            np.testing.assert_allclose(state.second, wanted, rtol=1e-3, atol=1e-12, err_msg=name)
            total += np.square(gradient).sum()
        assert math.sqrt(total) == pytest.approx(recorded.recorded()[recorded.UNCLIPPED]["grad_norms"][0], rel=1e-3)

    @takes("save_strategy", "save_steps")
    def test_a_checkpoint_has_what_the_core_adds_before_it_is_in_its_place(self, shared: Shared) -> None:
        kept = checkpoints.list_complete(shared.baseline.job.output_dir)
        written_at = [(folder / FROM_THE_CORE).read_text() for folder in kept]
        assert [str(folder) for folder, place in zip(kept, written_at, strict=True) if place == str(folder)] == []
