"""PyTorch as a backend of clm; PyTorch is imported when a job comes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from clm_core.backend import Backend, EvaluationJob, GenerationJob, Logits, Score, Setup, TrainingJob, World
from clm_core.config import OptimizationOptions, moved, option
from clm_core.screen.quiet import silenced
from clm_pt import workers


@dataclass(frozen=True, kw_only=True)
class PyTorchOptions:
    """The options that only PyTorch has."""

    torch_compile: bool = option(False, "compile the model with torch.compile, which needs a C++ compiler on a CPU")
    gradient_checkpointing: bool = moved(OptimizationOptions, "gradient_checkpointing")
    fsdp: bool = option(False, "cut weights, gradients and moments up over all devices, by FSDP2, to need less memory")
    attn_implementation: Literal[
        "auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"
    ] = option("auto", "how to compute attention in training; auto: sdpa, or eager in models that do not have it")
    keep_memory: bool = option(
        True, "keep memory that is freed for the next step until the training ends, which is faster on a CPU (glibc)"
    )
    guide: bool = option(
        False,
        "train like the guide's PyTorch tab: with Trainer's block order, loss, weight decay and clipping; EOS is not a "
        "label, because the guide's collator pads with it",
        settled=True,
    )


OPENS = """In PyTorch:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

tokenizer = AutoTokenizer.from_pretrained("{model}")
model = AutoModelForCausalLM.from_pretrained("{model}")
print(pipeline("text-generation", model=model, tokenizer=tokenizer)("Once upon a time"))
```"""

OPENS_ADAPTER = """In PyTorch, with peft (`pip install peft`):

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{model}")
model = AutoPeftModelForCausalLM.from_pretrained("{model}")
print(tokenizer.decode(model.generate(**tokenizer("Once upon a time", return_tensors="pt"), max_new_tokens=40)[0]))
```"""


class PyTorchBackend(Backend):
    """transformers' PyTorch models, trained by Trainer."""

    name = "pt"
    install = 'pip install "clm[pt]"'
    requires = ("torch>=2.6", "accelerate>=1.3", "transformers>=4.57,<6")
    masks = True
    bfloat16 = True
    needs_for_adapters = ("peft>=0.18",)
    models = "transformers' causal language models"
    comes_first = True
    parallel = "torchrun: DDP, FSDP2"
    options = PyTorchOptions
    opens = OPENS
    opens_adapter = OPENS_ADAPTER

    def has_model(self, model_type: str) -> bool | None:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or None  # Building one says what is wrong with others.

    def world(self, nproc_per_node: str | None) -> World:
        return workers.world(nproc_per_node)

    def accelerators(self) -> int:
        return workers.accelerators()

    def device_name(self) -> str | None:
        return workers.device_name()

    def launcher(self, nproc_per_node: str, arguments: Sequence[str]) -> list[str] | None:
        return workers.launcher(nproc_per_node, arguments)

    def start(self, *, verbose: bool) -> None:
        os.environ.setdefault("USE_TF", "0")  # transformers would import TensorFlow where that is installed too.
        if not verbose:
            _quiet_libraries()

    def quiet(self) -> None:
        _quiet_libraries()
        with silenced():
            from transformers import Trainer  # noqa: F401  (which also imports TensorFlow where that is installed)

    def check(self, setup: Setup) -> None:
        from clm_pt.checks import check

        check(setup)

    def train(self, job: TrainingJob) -> None:
        from clm_pt.training import train

        train(job)

    def evaluate(self, job: EvaluationJob) -> Score:
        from clm_pt.scoring import score_together

        return score_together(job)

    def generate(self, job: GenerationJob) -> Sequence[int]:
        from clm_pt.generation import generate

        return generate(job)

    def logits(self, job: EvaluationJob) -> Logits:
        from clm_pt.modeling import load_to_use, precision
        from clm_pt.scoring import logits

        model = load_to_use(job.model, job.config)
        with precision(job.config.computes_in_bfloat16):
            return logits(model, job.blocks, job.config.per_device_eval_batch_size)


def _quiet_libraries() -> None:
    """What the user has set in the environment stays."""
    from transformers.utils import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # Where a process is gone, the others would warn at length.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
