"""Draws losses over steps as a picture."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clm_core.durable import replace

STYLES = ("-", "--", ":", "-.")
"""Lines that lie on top of each other can still be told apart."""


def draw_losses(file: Path, lines: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Write a PNG of the loss, in nats per token, over the steps; each line has a label, and pairs of step and loss."""
    # Not pyplot, which keeps figures for the process and looks for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes: Any = figure.subplots()
    for number, (label, points) in enumerate(lines.items()):
        marker = "o" if len(points) < 20 else None
        axes.plot(*zip(*points, strict=True), STYLES[number % len(STYLES)], label=label, marker=marker)
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    # Without the version of the library, so that the same losses make the same file.
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    replace(file, picture.getvalue())
