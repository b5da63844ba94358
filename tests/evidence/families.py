"""Small models of today's families, trained from scratch by pt and keras: docs/keras.png, and a table in docs/keras.md.

    python tests/evidence/families.py FOLDER [options of `clm parity`, such as --train-file rows.jsonl]

Without options, they are trained on the built-in sample.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from clm_core.runs.plot import draw_losses

DOCS = Path(__file__).parents[2] / "docs"
SIZES = (
    "num_hidden_layers=4,hidden_size=128,num_attention_heads=4,num_key_value_heads=2,head_dim=32,intermediate_size=384"
)
FAMILIES = {"llama": "", "qwen3": "", "gemma3_text": ",query_pre_attn_scalar=32,sliding_window=32"}
"""The model types, and what the configuration of each needs beside `SIZES`."""
TRAINING = ("--learning-rate", "5e-4", "--warmup-ratio", "0.1", "--max-steps", "200", "--compare-steps", "40")

BEGIN, END = "<!-- families: begin -->\n", "<!-- families: end -->\n"
HEAD = """\
| model type | first loss | last loss | loss | gradient norm | weights | logits | evaluation loss |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main(folder: Path, *options: str) -> None:
    """Train, compare, draw and write the page."""
    compared = {kind: compare(kind, folder / kind, options) for kind in FAMILIES}
    lines = {f"{kind}, {name}": losses(folder / kind / name) for kind in FAMILIES for name in ("pt", "keras")}
    draw_losses(DOCS / "keras.png", lines)
    rows = [row(kind, found, lines[f"{kind}, pt"]) for kind, found in compared.items()]
    page = DOCS / "keras.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    table = HEAD + "\n".join(rows) + "\n"
    page.write_text(before + BEGIN + "\n" + table + "\n" + END + rest.split(END)[1], encoding="utf-8")


def compare(kind: str, folder: Path, options: tuple[str, ...]) -> Any:
    """What `clm parity` finds."""
    data = options or ("--config", "sample")
    model = ("--model-type", kind, "--config-overrides", f"{SIZES}{FAMILIES[kind]}")
    command = ("clm", "parity", "--backends", "pt", "keras", *data, *model, *TRAINING, "--json")
    done = subprocess.run([*command, "--output-dir", str(folder)], stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode > 1:  # 1 says that they parted, which the page shows.
        done.check_returncode()
    return json.loads(done.stdout)


def losses(folder: Path) -> list[tuple[int, float]]:
    """The loss of each step of one side."""
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return [(step["step"], step["loss"]) for step in record["steps"]]


def row(kind: str, found: Any, line: list[tuple[int, float]]) -> str:
    """The row of a family."""
    names = ("loss", "gradient norm", "weights", "logits", "evaluation loss")
    largest = [
        max(each["relative"] for each in found["differences"] if each["quantity"] == name and each["step"])
        for name in names
    ]
    cells = (kind, f"{line[0][1]:.4f}", f"{line[-1][1]:.4f}", *(f"{value:.1e}" for value in largest))
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
