"""Keras 3 on TensorFlow as a backend of clm; Keras is imported when a job comes."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from clm_core.backend import Backend, EvaluationJob, GenerationJob, Logits, Score, Setup, TrainingJob, World
from clm_core.config import option
from clm_core.errors import BackendError, OptionError
from clm_core.screen.quiet import silenced
from clm_tf.devices import VARIABLE as PROCESSES
from clm_tf.devices import accelerators, device_name, find_world, grow_memory

ENGINE, VARIABLE = "tensorflow", "KERAS_BACKEND"
"""What Keras computes with here, and where Keras looks that up when it is imported."""


@dataclass(frozen=True, kw_only=True)
class KerasOptions:
    """The options that only Keras 3 has."""

    jit_compile: bool | None = option(
        None,
        "compile the training step with XLA, or not; default: in a training that is long enough to win back the time "
        "that compiling takes",
    )
    decay_all: bool = option(
        False, "apply weight decay to norms and biases too, as keras.optimizers.AdamW does by default"
    )


OPENS = """As a `keras.Model` of Keras 3, on TensorFlow (from a clone of clm's repository: `pip install ".[keras]"`):

```python
import clm_tf.keras3

model = clm_tf.keras3.load("{model}")
```"""


class KerasBackend(Backend):
    """A decoder in Keras 3, which TensorFlow computes."""

    name = "keras"
    install = 'pip install "clm[keras]"'
    requires = ("tensorflow>=2.18", "keras>=3.12", "transformers>=4.57,<6")
    masks = True
    bfloat16 = True
    models = "decoders in Keras 3: Llama, Qwen, Gemma and others"
    parallel = "tf.distribute, in one process"
    options = KerasOptions
    opens = opens_adapter = OPENS

    def has_model(self, model_type: str) -> bool:
        from clm_tf.keras3.families import MODEL_TYPES

        return model_type in MODEL_TYPES

    def world(self, nproc_per_node: str | None) -> World:
        world = find_world(nproc_per_node)
        if not world.is_one_process:
            raise OptionError(
                f"{PROCESSES} names {world.size // world.local} workers, and Keras 3 trains in one process: "
                f"use --backend tf, or --nproc-per-node in one process, without {PROCESSES}"
            )
        return world

    def accelerators(self) -> int:
        return accelerators()

    def device_name(self) -> str | None:
        return device_name()

    def start(self, *, verbose: bool) -> None:
        grow_memory()
        compute_with_tensorflow()
        if not verbose:
            _quiet_libraries()

    def quiet(self) -> None:
        compute_with_tensorflow()
        _quiet_libraries()
        with silenced():  # TensorFlow writes to standard error while it is imported, whatever it is told.
            import keras  # noqa: F401

    def check(self, setup: Setup) -> None:
        from clm_tf.keras3.checks import check

        check(setup)

    def train(self, job: TrainingJob) -> None:
        compute_with_tensorflow()
        from clm_tf.keras3.training import train

        train(job)

    def evaluate(self, job: EvaluationJob) -> Score:
        compute_with_tensorflow()
        from clm_tf.keras3.scoring import score_together

        return score_together(job)

    def generate(self, job: GenerationJob) -> Sequence[int]:
        compute_with_tensorflow()
        from clm_tf.keras3.generation import generate

        return generate(job)

    def logits(self, job: EvaluationJob) -> Logits:
        compute_with_tensorflow()
        from clm_tf.keras3.modeling import load, precision_of
        from clm_tf.keras3.scoring import logits

        with precision_of(job.config):
            return logits(load(job.model), job.blocks, job.config.per_device_eval_batch_size)


def compute_with_tensorflow() -> None:
    """Have Keras compute with TensorFlow, which it has to know before it is imported.

    Raises:
        BackendError: it is to compute with another engine, or was imported with one.
    """
    imported = sys.modules.get("keras")
    engine = imported.config.backend() if imported else os.environ.get(VARIABLE) or ENGINE
    if engine != ENGINE:
        raise BackendError(
            f"{VARIABLE} is {engine}, and backend keras computes with TensorFlow: set {VARIABLE}={ENGINE} before Keras "
            "is imported"
        )
    os.environ[VARIABLE] = ENGINE  # Or Keras takes the engine that is named in ~/.keras/keras.json.


def _quiet_libraries() -> None:
    """What the user has set in the environment stays."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # It would say that PyTorch is missing.
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(tensorflow|keras)\b")
