"""What the tests of the PyTorch backend start from: a tiny GPT-2, blocks without meaning, and short trainings."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if not all(map(find_spec, ("torch", "accelerate"))):
    collect_ignore_glob = ["test_*.py"]

from transformers import GPT2Config

from clm_core.backend import Blocks, Model, TrainingJob
from clm_core.config import TrainConfig
from clm_core.schedule import Schedule
from clm_pt.backend import PyTorchOptions


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices of this size are computed before other threads wake up."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def blocks() -> Blocks:
    """27 blocks of 12 tokens: in batches of 4, an epoch ends with one of 3."""
    return np.random.default_rng(0).integers(0, 64, (27, 12)).astype(np.uint16)


@pytest.fixture
def new_model() -> Callable[..., Model]:
    """A model from scratch, without dropout unless asked for; other fields of `Model` and its config by keyword."""

    def build(name_or_path: Any = None, *, seed: int = 7, dropout: float = 0.0, **changes: Any) -> Model:
        sizes = {"vocab_size": 64, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
        rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
        architecture = GPT2Config(**(sizes | rates | {"bos_token_id": 0, "eos_token_id": 0} | changes))
        path = None if name_or_path is None else str(name_or_path)
        return Model(name_or_path=path, revision="main", architecture=architecture, seed=seed)

    return build


@pytest.fixture
def new_job(tmp_path: Path, blocks: Blocks, new_model: Callable[..., Model]) -> Callable[..., TrainingJob]:
    """A job with options of `TrainConfig` by keyword; `job.report.__self__` is the list of its events."""

    def build(
        *,
        model: Model | None = None,
        validation: Any = None,
        resume_from: Path | None = None,
        output_dir: Path | None = None,
        report: Any = None,
        pt: PyTorchOptions | None = None,
        **options: Any,
    ) -> TrainingJob:
        usual = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "max_steps": 4, "save_strategy": "no"}
        usual["save_total_limit"] = None
        config = TrainConfig(**(usual | options))
        output_dir = output_dir or tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        (output_dir / "model").mkdir(parents=True, exist_ok=True)
        return TrainingJob(
            model=model or new_model(),
            train=blocks,
            validation=validation,
            schedule=Schedule.from_config(config, blocks=len(blocks)),
            config=config,
            options=pt or PyTorchOptions(),
            output_dir=output_dir,
            model_dir=output_dir / "model",
            resume_from=resume_from,
            report=report or [].append,
            backend="pt",
        )

    return build


@pytest.fixture
def by_hand() -> Callable[..., dict[str, Any]]:
    """The weights after AdamW in a plain loop; a phase is a job, and the step that it goes on to."""
    import torch

    from clm_pt import modeling
    from clm_pt.optimization import clip

    def train_by_hand(*phases: tuple[TrainingJob, int]) -> dict[str, Any]:
        model = modeling.load(phases[0][0].model)
        groups = [[weight for weight in model.parameters() if (weight.ndim == 2) == decays] for decays in (True, False)]
        optimizer, step = torch.optim.AdamW([{"params": group} for group in groups]), 0
        for job, end in phases:
            batches = [rows for epoch in range(3) for rows in job.schedule.batches(epoch)]
            for step in range(step, end):  # noqa: B020
                for group, decay in zip(optimizer.param_groups, (job.config.weight_decay, 0.0), strict=True):
                    group.update(lr=job.schedule.learning_rate_at(step), weight_decay=decay)
                    group.update(betas=(job.config.adam_beta1, job.config.adam_beta2), eps=job.config.adam_epsilon)
                ids = torch.from_numpy(job.train[batches[step]].astype(np.int64))
                model(ids, labels=ids).loss.backward()
                clip(model.parameters(), job.config.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            step = end
        return model.state_dict()

    return train_by_hand
