"""What a backend that can have weights in bfloat16 has to do with them, as tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from clm_core import checkpoints
from clm_core.backend import Backend, Evaluated, StepDone
from clm_core.config import EvaluateConfig
from clm_core.testing import chances
from clm_core.testing.applying import where
from clm_core.testing.shared import Shared
from clm_core.testing.tiny import read_weights
from clm_core.testing.trace import evaluate, generate, losses

HALF: dict[str, Any] = {"dtype": "bfloat16"}
SMALL = 1e-6
"""A learning rate whose updates are less than half of what the weights differ by in bfloat16."""

has_bfloat16 = where(lambda backend: backend.bfloat16 and backend.incomparable is None)


class DtypeContract:
    """The part of the contract that is about them."""

    backend: ClassVar[Backend]

    @has_bfloat16
    def test_what_bfloat16_weights_would_lose_of_an_update_is_in_what_is_written(self, shared: Shared) -> None:
        run = shared.run(learning_rate=SMALL, **HALF)
        start, end = read_weights(shared.untrained.job.model_dir), read_weights(run.job.model_dir)
        assert {array.dtype.name for array in end.values()} == {"float32"}
        moved = np.concatenate([(end[name] != start[name]).ravel() for name in start])
        assert moved.mean() > 0.9
        assert max(float(np.abs(end[name] - start[name]).max()) for name in start) < 10 * SMALL

    @has_bfloat16
    def test_bfloat16_weights_follow_those_that_are_rounded_where_they_are_used(self, shared: Shared) -> None:
        half, rounded = shared.run(**HALF), shared.run(bf16=True)
        assert losses(half) != losses(rounded)
        assert losses(half) == pytest.approx(losses(rounded), rel=5e-3)

    @has_bfloat16
    def test_a_training_of_bfloat16_weights_goes_on_as_if_nothing_had_happened(self, shared: Shared) -> None:
        whole = shared.run(**HALF)
        rest = shared.run_again(resume_from=checkpoints.list_complete(whole.job.output_dir)[0], **HALF)
        assert rest.of(StepDone) == whole.of(StepDone)[rest.job.first_step :]
        start, end = (read_weights(run.job.model_dir) for run in (whole, rest))
        assert {name for name in start if start[name].tobytes() != end[name].tobytes()} == set()

    @has_bfloat16
    def test_float32_weights_go_on_from_a_checkpoint_of_bfloat16_ones(self, shared: Shared) -> None:
        whole = shared.run(**HALF)
        rest = shared.run_again(resume_from=checkpoints.list_complete(whole.job.output_dir)[0])
        expected = losses(whole)[rest.job.first_step :]
        assert losses(rest) != expected
        assert losses(rest) == pytest.approx(expected, rel=1e-2)

    @has_bfloat16
    def test_an_evaluation_with_bfloat16_weights_is_that_of_the_training(self, shared: Shared) -> None:
        run = shared.run(**HALF)
        half, exact = (evaluate(self.backend, run, config=EvaluateConfig(dtype=it)) for it in ("bfloat16", "float32"))
        assert half.loss == pytest.approx(run.of(Evaluated)[-1].score.loss, rel=1e-6)
        assert half.loss != exact.loss
        assert half.loss == pytest.approx(exact.loss, rel=5e-3)

    @has_bfloat16
    def test_a_text_of_bfloat16_weights_is_of_rounded_ones(self, tmp_path: Path) -> None:
        model = chances.write_close(tmp_path)
        assert generate(self.backend, model=model, max_new_tokens=2) == [chances.LIKELIER] * 2
        assert generate(self.backend, model=model, max_new_tokens=2, **HALF) == [chances.FIRST_OF_EQUAL] * 2
