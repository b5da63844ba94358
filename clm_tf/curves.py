"""The curves of a training, written for TensorBoard."""

import importlib.util
from pathlib import Path

import tensorflow as tf

from clm_core.backend import Evaluated, Event, Logged, Report
from clm_core.errors import BackendError


def with_curves(report: Report, folder: Path) -> Report:
    """Report as before, and write losses, rates and norms under the names that `Trainer` gives them.

    Raises:
        BackendError: TensorBoard is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise BackendError("report_to tensorboard: it is not installed: pip install 'clm[tensorboard]'")
    writer = tf.summary.create_file_writer(str(folder))

    def write(event: Event) -> None:
        report(event)
        if curves := _curves(event):
            with writer.as_default(step=event.step):
                for name, value in curves.items():
                    tf.summary.scalar(name, value)
            writer.flush()

    return write


def _curves(event: Event) -> dict[str, float]:
    if isinstance(event, Evaluated):
        return {"eval/loss": event.score.loss}
    if isinstance(event, Logged):
        curves = {"train/loss": event.loss, "train/learning_rate": event.learning_rate}
        return curves if event.grad_norm is None else {**curves, "train/grad_norm": event.grad_norm}
    return {}
