"""The comparison as a table: the differences step by step, and the first step at which the backends diverge."""

import math

from clm_core.counts import with_noun
from clm_core.results import Difference, ParityResult

COLUMNS = ("loss", "gradient norm", "weights", "logits", "evaluation loss")
"""The quantities whose relative differences are shown."""


def of_parity(result: ParityResult) -> str:
    """The differences of two backends, step by step, and the first that is not tolerated."""
    one, other = result.backends
    columns = [name for name in COLUMNS if any(found.quantity == name for found in result.differences)]
    rows = [["step", f"loss {one}", f"loss {other}", *columns]]
    for step in _shown_steps(result):
        found = {it.quantity: it for it in result.differences if it.step == step}
        losses = found["loss"].values if "loss" in found else None
        numbers = [f"{value:.6f}" for value in losses] if losses else ["", ""]
        rows.append([str(step), *numbers, *(_scientific(found.get(name)) for name in columns)])
    later = {name: [it for it in result.differences if it.quantity == name and it.step] for name in columns}
    rows.append(["largest", "", "", *(_scientific(max(later[name], key=_excess, default=None)) for name in columns)])
    rows.append(["tolerated", "", "", *(f"{later[name][0].tolerance:.0e}" if later[name] else "" for name in columns)])
    first = {it.quantity: f"{it.tolerance:.0e}" for it in result.differences if not it.step}
    rows.append(["at step 0", "", "", *(first.get(name, "") for name in columns)])
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*_versions(result), "", *table, "", _verdict(result)])


def _excess(difference: Difference) -> float:
    """A difference as a fraction of its tolerance; not-a-number exceeds all others."""
    share = difference.relative / difference.tolerance
    return math.inf if math.isnan(share) else share


def _shown_steps(result: ParityResult) -> list[int]:
    """The steps at which more than losses was compared, or about twenty of them, the last one included."""
    steps = sorted({it.step for it in result.differences if it.quantity not in ("loss", "gradient norm")})
    stride = -(-len(steps) // 20) if len(steps) > 21 else 1
    return [step for index, step in enumerate(steps) if index % stride == 0 or step == steps[-1]]


def _scientific(difference: Difference | None) -> str:
    return "" if difference is None else f"{difference.relative:.1e}" if difference.relative else "0"


def _versions(result: ParityResult) -> list[str]:
    return [
        f"{name:8}  " + ", ".join(f"{what} {version}" for what, version in result.versions[name].items())
        for name in result.backends
    ]


def _verdict(result: ParityResult) -> str:
    one, other = result.backends
    found = result.parted
    if found is None:
        return f"{one} and {other} agree over {with_noun(result.steps, 'step')}"
    values = f": {found.values[0]:.9g} and {found.values[1]:.9g}" if found.values else ""
    where = f" ({found.where})" if found.where else ""
    return (
        f"{one} and {other} diverge at step {found.step}, in the {found.quantity}{values}: the relative difference is "
        f"{found.relative:.1e}, the tolerance {found.tolerance:.0e}{where}"
    )
