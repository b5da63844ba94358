"""TensorFlow as a backend of clm; TensorFlow is imported when a job comes."""

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from clm_core.backend import Backend, EvaluationJob, GenerationJob, Logits, Score, Setup, TrainingJob, World
from clm_core.config import option
from clm_core.screen.quiet import silenced
from clm_tf.devices import accelerators, come, device_name, find_world, grow_memory, leave

MODEL_TYPES = frozenset(
    {
        *("bert", "camembert", "ctrl", "gpt-sw3", "gpt2", "gptj", "mistral", "openai-gpt", "opt", "rembert", "roberta"),
        *("roberta-prelayernorm", "roformer", "transfo-xl", "xglm", "xlm", "xlm-roberta", "xlnet"),
    }
)
"""Those that transformers 4.57, the last with TensorFlow, has a TensorFlow class for."""


@dataclass(frozen=True, kw_only=True)
class TensorFlowOptions:
    """The options that only TensorFlow has."""

    jit_compile: bool = option(False, "compile the training step with XLA, which takes a while and pays off on a GPU")
    decay_all: bool = option(
        False, "apply weight decay to norms and biases too, as transformers' AdamWeightDecay does by default"
    )
    guide: bool = option(
        False,
        "train like the guide's TensorFlow tab: model.prepare_tf_dataset, transformers' own AdamWeightDecay with "
        "Keras' epsilon, and fit, with PushToHubCallback if push_to_hub; EOS is not a label, because the collator pads "
        "with it",
        settled=True,
    )


OPENS = """In TensorFlow, with transformers 4.57, and with PyTorch installed, in whose layout the weights are:

```python
from huggingface_hub import snapshot_download
from transformers import AutoTokenizer, TFAutoModelForCausalLM, pipeline

folder = snapshot_download("{model}")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = TFAutoModelForCausalLM.from_pretrained(folder, from_pt=True)
print(pipeline("text-generation", model=model, tokenizer=tokenizer, framework="tf")("Once upon a time"))
```

Without PyTorch, clm opens it as the same Keras model (from a clone of its repository: `pip install ".[tf]"`):

```python
import clm_tf

model = clm_tf.load("{model}")
```"""

OPENS_ADAPTER = """In TensorFlow, with clm (from a clone of its repository: `pip install ".[tf]"`):

```python
import clm_tf

model = clm_tf.load("{model}")
```"""


class TensorFlowBackend(Backend):
    """transformers' TensorFlow models, trained by Keras."""

    name = "tf"
    install = 'pip install "clm[tf]"'
    requires = ("tensorflow>=2.18", "tf-keras>=2.18", "transformers>=4.57,<5")
    masks = True
    models = f"transformers' {len(MODEL_TYPES)} TensorFlow classes"
    comes_first = True
    unsupported: ClassVar[dict[str, str]] = {
        "gradient_checkpointing": "transformers' TensorFlow classes keep all activations; --backend keras or pt has it",
        "dtype": "transformers' TensorFlow classes have float32 weights here; --backend keras or pt has it, and a run "
        "resumes here with --dtype float32",
    }
    parallel = "tf.distribute"
    options = TensorFlowOptions
    opens = OPENS
    opens_adapter = OPENS_ADAPTER

    def has_model(self, model_type: str) -> bool:
        return model_type in MODEL_TYPES

    def world(self, nproc_per_node: str | None) -> World:
        return find_world(nproc_per_node)

    def come(self) -> None:
        come()

    def leave(self, *, patient: bool) -> None:
        leave(patient=patient)

    def accelerators(self) -> int:
        return accelerators()

    def device_name(self) -> str | None:
        return device_name()

    def start(self, *, verbose: bool) -> None:
        grow_memory()
        if not verbose:
            _quiet_libraries()

    def quiet(self) -> None:
        _quiet_libraries()
        with silenced():  # It writes to standard error while it is imported, whatever it is told.
            import tensorflow  # noqa: F401

    def check(self, setup: Setup) -> None:
        from clm_tf.checks import check

        check(setup)

    def train(self, job: TrainingJob) -> None:
        from clm_tf.training import train

        train(job)

    def evaluate(self, job: EvaluationJob) -> Score:
        from clm_tf.scoring import score_together

        return score_together(job)

    def generate(self, job: GenerationJob) -> Sequence[int]:
        from clm_tf.generation import generate

        return generate(job)

    def logits(self, job: EvaluationJob) -> Logits:
        from clm_tf.modeling import load, precision
        from clm_tf.scoring import logits

        with precision(job.config.bf16):
            return logits(load(job.model), job.blocks, job.config.per_device_eval_batch_size)


def _quiet_libraries() -> None:
    """What the user has set in the environment stays."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("tensorflow", "absl", "transformers.modeling_tf_utils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(tensorflow|tf_keras)\b")
