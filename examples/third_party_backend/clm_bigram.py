"""A complete backend for clm in one file, without any framework: it counts which token follows which.

    pip install ./examples/third_party_backend
    clm --backend bigram train

A token's probability is its share of what followed the previous token, smoothed by its share of all
tokens (Jelinek and Mercer, 1980, with a weight that falls with the count). "Training" adds counts, step
by step in the order that clm decides; "checkpoints" and "weights" are those counts.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from safetensors.numpy import load_file, save_file

from clm_core import checkpoints
from clm_core.backend import Backend, EvaluationJob, GenerationJob, Model, Score, StepDone, TrainingJob
from clm_core.errors import ModelError
from clm_core.sampling import choose
from clm_core.scoring import score_in_batches

NO_GRADIENT = "bigram counts have no gradient"
FILE = "model.safetensors"
SMOOTHING = 8.0


class Bigrams:
    """Counts of pairs of tokens, as sorted codes `previous * vocabulary + next`, int64, and of single tokens."""

    def __init__(self, vocabulary: int) -> None:
        self.codes, self.pairs = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.singles, self.followed = np.ones(vocabulary, np.int64), np.zeros(vocabulary, np.int64)

    def add(self, blocks: np.ndarray) -> None:
        """Count the pairs of some blocks, (blocks, block_size)."""
        previous, following = blocks[:, :-1].ravel(), blocks[:, 1:].ravel()
        codes = np.concatenate([self.codes, previous * len(self.singles) + following])
        self.codes, places = np.unique(codes, return_inverse=True)
        weights = np.concatenate([self.pairs, np.ones(len(previous), np.int64)])
        self.pairs = np.bincount(places, weights).astype(np.int64)
        np.add.at(self.singles, following, 1)
        np.add.at(self.followed, previous, 1)

    def probabilities(self, previous: np.ndarray, following: np.ndarray) -> np.ndarray:
        """The probability of each `following` token after each `previous` one, arrays of one shape."""
        codes = previous * len(self.singles) + following
        places = np.minimum(np.searchsorted(self.codes, codes), max(0, len(self.codes) - 1))
        seen = np.where(self.codes[places] == codes, self.pairs[places], 0) if len(self.codes) else 0
        smooth = self.singles[following] / self.singles.sum()
        return (seen + SMOOTHING * smooth) / (self.followed[previous] + SMOOTHING)

    def after(self, token: int) -> np.ndarray:
        """The probability of every token of the vocabulary after this one."""
        vocabulary = np.arange(len(self.singles))
        return self.probabilities(np.full_like(vocabulary, token), vocabulary)

    def score(self, blocks: np.ndarray) -> Score:
        """Score blocks of token ids, int64 of shape (blocks, block_size)."""
        previous, following = blocks[:, :-1].ravel(), blocks[:, 1:].ravel()
        loss = -np.log(self.probabilities(previous, following)).sum()
        likeliest = {token: int(self.after(token).argmax()) for token in np.unique(previous).tolist()}
        hits = sum(likeliest[a] == b for a, b in zip(previous.tolist(), following.tolist(), strict=True))
        return Score(loss_sum=float(loss), correct=hits, tokens=following.size)

    def save(self, folder: Path) -> None:
        """Write the counts; no pickle, as everywhere in clm."""
        save_file(vars(self), folder / FILE)

    @classmethod
    def load(cls, folder: Path, ignore_unused_weights: bool = False) -> "Bigrams":
        """Read what `save` wrote."""
        if not (folder / FILE).is_file() or "pairs" not in (arrays := load_file(folder / FILE)):
            raise ModelError(f"{folder} contains no bigram counts: train some with --backend bigram")
        bigrams = cls(0)
        if (unused := arrays.keys() - vars(bigrams).keys()) and not ignore_unused_weights:
            raise ModelError(f"{folder} has tensors that are not counts: {', '.join(sorted(unused))}")
        vars(bigrams).update({name: arrays[name] for name in vars(bigrams)})
        return bigrams


class BigramBackend(Backend):
    """Bigram counts behind the contract of clm."""

    name = "bigram"
    install = "pip install ./examples/third_party_backend"
    incomparable = "bigram counts are not a transformers architecture"
    unsupported: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("learning_rate", "lr_scheduler_type", "warmup_steps", "warmup_ratio", "lora_r"), NO_GRADIENT),
        **dict.fromkeys(("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"), NO_GRADIENT),
        **dict.fromkeys(("lr_scheduler_kwargs", "optim", "gradient_checkpointing", "freeze"), NO_GRADIENT),
        **dict.fromkeys(("train_only", "embedding_learning_rate"), NO_GRADIENT),
        "bf16": "counts are whole numbers",
    }

    def train(self, job: TrainingJob) -> None:
        """Add the counts of every step's blocks."""
        bigrams = _start(job.source)
        score = partial(_score, bigrams, job.validation, job.config, job.report)
        job.evaluate(job.first_step, score)
        for step, batches in job.schedule.steps(job.first_step):
            blocks = job.train[np.concatenate(batches)].astype(np.int64)
            loss = bigrams.score(blocks).loss
            bigrams.add(blocks)
            job.report(StepDone(step=step, loss=loss))
            job.evaluate(step, score)
            if job.saves_at(step):
                checkpoints.save(job, step, lambda folder: _save(bigrams, job, folder))
        _save(bigrams, job, job.model_dir)

    def evaluate(self, job: EvaluationJob) -> Score:
        """Score blocks, batch by batch."""
        return _score(_start(job.model), job.blocks, job.config, job.report)

    def generate(self, job: GenerationJob) -> Sequence[int]:
        """Append one token after the other."""
        bigrams = _start(job.model)
        random = np.random.default_rng(job.config.seed)
        ids = list(job.prompt)
        while len(ids) < len(job.prompt) + job.config.max_new_tokens:
            ids.append(choose(np.log(bigrams.after(ids[-1])), job.config, random))
            if ids[-1] in job.eos_token_ids:
                break
        return ids[len(job.prompt) :]


def _start(model: Model) -> Bigrams:
    if model.name_or_path is None:
        return Bigrams(model.architecture.vocab_size)
    return Bigrams.load(Path(model.name_or_path), model.ignore_unused_weights)


def _save(bigrams: Bigrams, job: TrainingJob, folder: Path) -> None:
    bigrams.save(folder)
    job.model.architecture.save_pretrained(folder)


def _score(bigrams: Bigrams, blocks: np.ndarray, config, report) -> Score:
    return score_in_batches(
        blocks, config.per_device_eval_batch_size, report, lambda batch: bigrams.score(batch.astype(np.int64))
    )
