"""Reference losses and gradient norms from the same weights and blocks, which every backend has to reproduce.

`BackendContract` compares; `python -m clm_core.testing.recorded pt` records them again, with the backend of that name.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from clm_core.backend import Model, StepDone
from clm_core.models.first_weights import first_weight

FILE = Path(__file__).with_suffix(".json")

VOCABULARY = 64

RUNS: dict[str, dict[str, Any]] = {
    "usual": {"max_steps": 8},
    "scheduled": {
        "max_steps": 8,
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.3,
        "max_grad_norm": 0.3,
    },
    "damped": {
        "max_steps": 8,
        "weight_decay": 0.5,
        "adam_beta1": 0.6,
        "adam_beta2": 0.9,
        "adam_epsilon": 1e-3,
        "max_grad_norm": 0.0,
    },
}
"""Options of the reference trainings, besides those that all runs of the contract have."""


def write_checkpoint(folder: Path) -> Model:
    """Write a tiny GPT-2 without dropout, with the core's first weights, and return it: no framework is needed."""
    from safetensors.numpy import save_file

    architecture = tiny_gpt2(initializer_range=0.2)  # With the usual 0.02, all logits would be close to 0.
    folder.mkdir(parents=True)
    shapes = _shapes(architecture.n_embd, architecture.n_layer, VOCABULARY, architecture.n_positions)
    weights: Any = {name: first_weight(name, shape, architecture, seed=42) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    architecture.save_pretrained(folder)
    return Model(name_or_path=str(folder), revision="main", architecture=architecture, seed=42)


def tiny_gpt2(*, dropout: float = 0.0, **changes: Any) -> Any:
    """The configuration of a GPT-2 that takes a few milliseconds a step."""
    from transformers import GPT2Config

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    sizes = {"vocab_size": VOCABULARY, "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return GPT2Config(**sizes, **rates, bos_token_id=0, eos_token_id=0, **changes)


def recorded() -> dict[str, dict[str, Any]]:
    """For each of `RUNS`: `losses` and `grad_norms` of its steps, and `evaluations`, the losses before and after."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def figures(events: list[Any]) -> dict[str, Any]:
    """What is recorded of a training."""
    steps = [event for event in events if isinstance(event, StepDone)]
    return {
        "losses": [step.loss for step in steps],
        "grad_norms": [step.grad_norm for step in steps],
        "evaluations": [event.score.loss for event in events if hasattr(event, "score")],
    }


def _shapes(width: int, layers: int, vocabulary: int, positions: int) -> dict[str, tuple[int, ...]]:
    """The parameters of a GPT-2, as PyTorch has them."""
    norms = {f"{name}.{part}": (width,) for name in ("ln_1", "ln_2") for part in ("weight", "bias")}
    sizes = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, 4 * width),
        "mlp.c_proj": (4 * width, width),
    }
    matrices = {f"{name}.weight": size for name, size in sizes.items()}
    biases = {f"{name}.bias": size[1:] for name, size in sizes.items()}
    layer: dict[str, tuple[int, ...]] = {**norms, **matrices, **biases}
    return {
        "transformer.wte.weight": (vocabulary, width),
        "transformer.wpe.weight": (positions, width),
        **{f"transformer.h.{i}.{name}": size for i in range(layers) for name, size in layer.items()},
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
    }


def _record(name: str) -> None:
    from clm_core.registry import get_backend
    from clm_core.testing import run

    backend, found = get_backend(name), {}
    backend.start(verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        model = write_checkpoint(Path(folder) / "start")
        for title, chosen in RUNS.items():
            found[title] = figures(run(backend, Path(folder) / title, model=model, **chosen).events)
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _record(*sys.argv[1:])
