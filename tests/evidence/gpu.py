"""Trains, evaluates and generates with each backend on this machine's GPU and on its CPU, and writes docs/gpu.md.

    python tests/evidence/gpu.py docs/gpu.md

The model is the built-in sample's, from scratch, without dropout and with the same first weights everywhere, so that
the losses of all rows are to be compared. It ends with 1 where there is no GPU, or where a backend did not use it.
"""

import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from processes import ask

from clm_core.sample import PROMPT
from clm_core.testing.parallel import WITHOUT_GPUS

STEPS, NEW_TOKENS = 100, 40
TOLERATED = 1e-3
"""Of the last loss, relative to that of the CPU: sums in another order, magnified by the training."""

GROWING = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
"""What keeps TensorFlow from taking all of a GPU's memory, so that a peak says something."""

PLACES = (("CPU", WITHOUT_GPUS, False), ("GPU", GROWING, False), ("GPU", GROWING, True))
"""Where each backend computes, the environment that leads there, and whether in bfloat16."""


def main(file: str) -> int:
    """Measure, and write the page."""
    names = [name for name, module in (("pt", "torch"), ("tf", "tensorflow")) if find_spec(module)]
    rows = [row for name in names for row in measure(name)]
    Path(file).write_text(page(rows), encoding="utf-8")
    print(page(rows))
    return 1 if any(problem(row, rows) for row in rows) else 0


def measure(backend: str, **options: Any) -> Iterator[dict[str, Any]]:
    """The figures of a backend: on the CPU in float32, and on the GPU in float32 and bfloat16."""
    for place, environment, bf16 in PLACES:
        with tempfile.TemporaryDirectory(prefix="clm-gpu-") as folder:
            training = {"config": "sample", "max_steps": STEPS, "output_dir": f"{folder}/run", **options}
            request = {"backend": backend, "training": training, "prompt": PROMPT, "new_tokens": NEW_TOKENS}
            found = ask("through_clm", {**request, "bf16": bf16}, CLM_CACHE=f"{folder}/cache", **environment)
        yield {**found, "backend": backend, "place": place, "bf16": bf16}


def problem(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """What is wrong with a row, or nothing."""
    if "refused" in row:
        return str(row["refused"])
    if row["place"] == "GPU" and not row["device"]["peak"]:
        return "no GPU was used"
    reference = next(other for other in rows if not other["bf16"] and other["place"] == "CPU")
    apart = abs(row["after"] / reference["after"] - 1)
    if not row["bf16"] and apart > TOLERATED:
        return f"its last loss is {apart:.1e} from that of {reference['backend']} on the CPU"
    return ""


def page(rows: list[dict[str, Any]]) -> str:
    """The rows, as Markdown."""
    head = [
        "# On a GPU\n",
        f"Made by `nox -s gpu`: {STEPS} steps of the built-in sample on each backend, without dropout, from the same "
        "first weights. The CPU is there to compare the losses with.\n",
        "| backend | device | precision | loss before | after | tokens/s | peak memory | evaluate | problem |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *(_line(row, problem(row, rows)) for row in rows)]) + "\n"


def _line(row: dict[str, Any], wrong: str) -> str:
    precision = "bfloat16" if row["bf16"] else "float32"
    if "refused" in row:
        return f"| `{row['backend']}` | {row['place']} | {precision} | | | | | | {wrong} |"
    figures = f"{row['before']:.6f} | {row['after']:.6f} | {row['tokens_per_second']:,.0f}"
    memory = f"{row['device']['peak'] / 2**20:,.0f} MiB" if row["device"]["peak"] else ""
    device = row["device"]["name"]
    return (
        f"| `{row['backend']}` | {device} | {precision} | {figures} | {memory} | {row['seconds_to_evaluate']:.1f} s "
        f"| {wrong} |"
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
