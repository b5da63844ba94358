"""The guide's TensorFlow tab as published, with Keras' own shuffling, optimizer, `fit` and evaluation."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
import transformers

from clm_core.backend import IGNORED, BatchScored, Evaluated, MaskedBlocks, Report, Score, TrainingJob
from clm_core.data.guide import GuideRows
from clm_core.errors import OptionError
from clm_core.hub.pushing import name_of
from clm_core.record import UPLOADING
from clm_core.schedule import Schedule
from clm_tf import modeling, parts
from clm_tf.callbacks import StepCallback, StepReport
from clm_tf.datasets import Collate, dataset_of_rows
from clm_tf.optimization import ScheduledLearningRate
from clm_tf.push_to_hub import PushToHubCallback


def train(job: TrainingJob) -> None:
    """Train as the tab does, and write the model to `job.model_dir`.

    Raises:
        ModelError: the model or the tokenizer cannot be used.
        OptionError: the tab does not have an option.
    """
    _check_blocks(job)
    rows, config = GuideRows(job.config), job.config
    collate = _collator(rows)
    with modeling.precision(config.bf16), _published(job, rows) as published:
        model = modeling.load(job.model)
        parts.choose(model, config)
        test_set = None
        if job.validation is not None and config.eval_strategy != "no":
            size = config.per_device_eval_batch_size
            test_set = dataset_of_rows(model, job.validation, shuffle=False, batch_size=size, collate_fn=collate)
        model.compile(optimizer=create_optimizer(job), jit_compile=job.options.jit_compile)  # No loss argument!
        callbacks = [_LossReport(job.schedule, job.report), *([_Validation(job, test_set)] if test_set else [])]
        if job.schedule.total_steps:
            model.fit(
                x=dataset_of_rows(
                    model,
                    job.train,
                    shuffle=True,
                    batch_size=job.schedule.batch_size,
                    drop_remainder=job.schedule.drop_last,
                    collate_fn=collate,
                ),
                validation_data=test_set if config.eval_strategy == "epoch" else None,
                epochs=job.schedule.epochs,
                callbacks=[*callbacks, _End(job.schedule), *published],
                verbose=0,
            )
        modeling.save(model, job.model_dir)


def create_optimizer(job: TrainingJob) -> transformers.AdamWeightDecay:
    """Transformers' own, which decays every variable, and whose epsilon is inside of the bias correction."""
    config = job.config
    return transformers.AdamWeightDecay(
        learning_rate=ScheduledLearningRate(job.schedule),
        beta_1=config.adam_beta1,
        beta_2=config.adam_beta2,
        epsilon=config.adam_epsilon,
        weight_decay_rate=config.weight_decay,
        **({"global_clipnorm": config.max_grad_norm} if config.max_grad_norm else {}),
    )


class _LossReport(StepReport):
    """Reports each step, and leaves the mean of an epoch to those that come after it, as if it had not been there."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._losses.append(float(logs["loss"]))
        super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["loss"] = sum(self._losses) / len(self._losses)


class _Validation(StepCallback):
    """Reports Keras' evaluation at the steps of the schedule: the mean of the losses of the batches."""

    def __init__(self, job: TrainingJob, dataset: tf.data.Dataset) -> None:
        super().__init__()
        self._schedule, self._report, self._dataset = job.schedule, job.report, dataset

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self.on_step_end(0)

    def on_step_end(self, step: int) -> None:
        if self._schedule.evaluates_at(step):
            self._report(Evaluated(step=step, score=_score(self.model, self._dataset, self._report)))


class _End(StepCallback):
    """Ends the training at the schedule's last step, which may be within an epoch."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule

    def on_step_end(self, step: int) -> None:
        if step >= self._schedule.total_steps:
            self.model.stop_training = True


def _score(model: keras.Model, dataset: tf.data.Dataset, report: Report) -> Score:
    @tf.function
    def scored(features: dict[str, tf.Tensor], labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        outputs = model({**features, "labels": labels}, training=False, return_dict=True)
        targets = labels[:, 1:]
        hits = tf.argmax(outputs.logits[:, :-1], axis=-1, output_type=targets.dtype) == targets
        return tf.reduce_mean(outputs.loss), tf.math.count_nonzero(hits), tf.math.count_nonzero(targets != IGNORED)

    losses, correct, tokens = [], 0, 0
    for features, labels in dataset:
        found = scored(features, labels)
        losses.append(float(found[0]))
        correct, tokens = correct + int(found[1]), tokens + int(found[2])
        report(BatchScored(blocks=len(labels)))
    return Score(loss_sum=sum(losses) / len(losses) * tokens, correct=correct, tokens=tokens)


def _collator(rows: GuideRows) -> Collate:
    collator = transformers.DataCollatorForLanguageModeling(tokenizer=rows.tokenizer, mlm=False, return_tensors="np")
    return lambda found: collator(rows(np.stack([row["input_ids"] for row in found])))


@contextmanager
def _published(job: TrainingJob, rows: GuideRows) -> Iterator[list[PushToHubCallback]]:
    """The callback that uploads each epoch's model, if requested; it writes to a separate folder."""
    config = job.config
    if not config.push_to_hub or config.hub_offline:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix=UPLOADING, dir=job.output_dir) as folder:
        yield [
            PushToHubCallback(
                output_dir=folder,
                tokenizer=rows.tokenizer,
                hub_model_id=config.hub_model_id or name_of(job.output_dir),
                hub_private_repo=config.hub_private_repo,
                hub_revision=config.hub_revision,
            )
        ]


def _check_blocks(job: TrainingJob) -> None:
    if isinstance(job.train, MaskedBlocks):
        raise OptionError("tf guide: the labels of the guide's collator are all tokens: give --no-completion-only-loss")
    if job.schedule.accumulation != 1:
        name = "train_batch_size" if job.config.train_batch_size else "gradient_accumulation_steps"
        raise OptionError(f"tf guide: {name} is not supported: leave it out")
