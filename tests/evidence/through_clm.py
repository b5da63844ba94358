"""What a backend of clm makes of a training: its losses, its scores, its text, and where it computed them.

    python tests/evidence/through_clm.py REQUEST.json ANSWER.json

The request names a `backend`, the options of a `training`, and what to `generate`; before the training the model is
scored and continues the prompt, where the training starts from one.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import clm_core as clm
from clm_core.errors import ClmError
from clm_core.registry import get_backend


def main(request: str, answer: str) -> None:
    """Read the request, and write the answer, which is a refusal where clm refuses."""
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    try:
        found = answers(**asked)
    except ClmError as error:
        found = {"refused": str(error)}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


def answers(backend: str, training: dict[str, Any], prompt: str, new_tokens: int, bf16: bool = False) -> dict[str, Any]:
    """`losses` of the steps, `before` and `after` in nats per token, `again` as read back, `text`, and the `device`."""
    get_backend(backend).start(verbose=False)
    run = clm.train(backend=backend, bf16=bf16, logging_steps=1, save_strategy="no", **training)
    started = time.monotonic()
    again = clm.evaluate(backend=backend, model_name_or_path=run.output_dir)
    scored = time.monotonic() - started
    source = training.get("model_name_or_path", run.output_dir)
    written = clm.generate(prompt, backend=backend, model_name_or_path=source, max_new_tokens=new_tokens)
    return {
        "losses": [entry["loss"] for entry in run.history if "loss" in entry],
        "before": run.before["loss"] if run.before else None,
        "after": run.after["loss"] if run.after else None,
        "again": again.metrics["loss"],
        "text": written.completion,
        "tokens_per_second": run.tokens_trained / run.seconds,
        "seconds_to_evaluate": scored,
        "run": str(run.output_dir),
        "device": DEVICES[backend](),
        "versions": run.versions,
    }


def _pytorch() -> dict[str, Any]:
    import torch

    from clm_pt.memory import peak_of_accelerator

    if not torch.accelerator.is_available():
        return {"name": "CPU", "peak": 0}
    return {"name": torch.cuda.get_device_name(), "peak": peak_of_accelerator()}


def _tensorflow() -> dict[str, Any]:
    from clm_tf.devices import device_name, peak_of_accelerator

    return {"name": device_name() or "CPU", "peak": peak_of_accelerator() or 0}


DEVICES = {"pt": _pytorch, "tf": _tensorflow}
"""What each backend computed on: its `name`, and the most bytes that tensors took there."""


if __name__ == "__main__":
    main(*sys.argv[1:])
