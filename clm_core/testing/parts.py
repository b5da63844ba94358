"""What every backend has to do with parts of a model, not trained or larger than in a file, as tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from safetensors.numpy import load_file

from clm_core import checkpoints
from clm_core.backend import Backend, Event, Saved
from clm_core.errors import OptionError
from clm_core.testing import recorded
from clm_core.testing.applying import comparable, takes
from clm_core.testing.shared import Shared
from clm_core.testing.tiny import VOCABULARY, read_weights, tiny_gpt2, training_job
from clm_core.testing.trace import run, train


class PartsContract:
    """The part of the contract that is about them."""

    backend: ClassVar[Backend]

    @comparable
    @takes("freeze")
    def test_what_is_frozen_keeps_every_bit_and_has_no_moments(self, shared: Shared) -> None:
        frozen = shared.run(freeze=("embeddings", "layers:0", "ln_f.bias"))
        start, end = (read_weights(run.job.model_dir) for run in (shared.untrained, frozen))
        kept = {name for name in start if ".h.0." in name or name.endswith(("wte.weight", "ln_f.bias"))}
        assert {name for name in start if start[name].tobytes() == end[name].tobytes()} == kept
        moments = load_file(frozen.of(Saved)[-1].path / checkpoints.MOMENTS)
        assert {name[2:] for name in moments} == start.keys() - kept

    @comparable
    @takes("freeze")
    @pytest.mark.parametrize("wrong", ["wtee", "layers:2", "*"])
    def test_a_part_that_is_not_there_is_refused_before_a_step(self, wrong: str, tmp_path: Path) -> None:
        events: list[Event] = []
        with pytest.raises(OptionError, match="freeze"):
            run(self.backend, tmp_path / "run", freeze=(wrong,), report=events.append)
        assert events == []

    @comparable
    @takes("resize_embeddings")
    def test_embeddings_that_are_added_are_the_mean_of_the_others(self, tmp_path: Path) -> None:
        start, rows = recorded.write_checkpoint(tmp_path / "start"), VOCABULARY + 3
        larger = replace(start, architecture=tiny_gpt2(vocab_size=rows), vocabulary=rows)
        job = training_job(self.backend, tmp_path / "run", model=larger)
        train(self.backend, replace(job, schedule=replace(job.schedule, total_steps=0, eval_every=None)))
        before, after = (read_weights(folder) for folder in (tmp_path / "start", job.model_dir))
        table = before["transformer.wte.weight"]
        added = np.broadcast_to(table.mean(axis=0, dtype=np.float64).astype(np.float32), (3, table.shape[1]))
        np.testing.assert_array_equal(after.pop("transformer.wte.weight"), np.concatenate([table, added]))
        assert {name for name in after if after[name].tobytes() != before[name].tobytes()} == set()
