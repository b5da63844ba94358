"""Which fields a class ignores, from the logits that were measured: clm_core/ignored_fields.json, and why."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parents[2] / "clm_core" / "ignored_fields.json"

MOVED, STILL = 1e-4, 1e-6
"""Of the largest logit: what a field must do in a reference, and cannot do where a class ignores it."""
SAME = 1e-5
"""Two models of the same weights are the same, if their logits are no farther apart."""

REFERENCE = "pt eager"
COMPLETED = {"4.57": ("rope_parameters",), "5": ()}
"""Fields that are translated into others before a class sees them, and so are never ignored."""

Measured = dict[str, np.ndarray]


def write(folder: Path) -> None:
    """Write the file from the folders of all series, and say what came of it."""
    found = ignored(folder)
    FILE.write_text(as_json(found), encoding="utf-8")
    for backend, by_series in found.items():
        for series, types in by_series.items():
            print(backend, series, sum(len(of) for kind in types.values() for of in kind.values()), "fields ignored")


def ignored(folder: Path) -> dict[str, Any]:
    """By backend, series and type: the fields that it reads with eager attention only, and those that it never reads.

    Each has the value that the class computes with, whatever the configuration says.
    """
    found: dict[str, Any] = {}
    all_series = sorted(path.name for path in folder.iterdir() if path.is_dir())
    names = sorted({path.stem for path in folder.glob("*/*.npz")})
    for name in names:
        read = {series: _read(folder / series, name) for series in all_series}
        for series, (tried, logits) in read.items():
            for backend in ("pt", "tf"):
                if f"{backend} as it is||" in logits:
                    references = [other for other, measured in read.items() if f"{REFERENCE}||" in measured[1]]
                    of = _of_class(backend, series, tried, read, references)
                    if of:
                        found.setdefault(backend, {}).setdefault(series, {})[name] = of
    return {backend: dict(sorted(of.items())) for backend, of in sorted(found.items())}


def as_json(found: dict[str, Any]) -> str:
    """A type to a line, so that what changes is seen in a diff."""
    backends = []
    for backend, of in found.items():
        series = []
        for version, types in of.items():
            lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(fields)}" for name, fields in sorted(types.items()))
            series.append(f"{json.dumps(version)}: {{\n{lines}\n}}")
        backends.append(f"{json.dumps(backend)}: {{\n" + ",\n".join(series) + "\n}")
    return "{\n" + ",\n".join(backends) + "\n}\n"


def _read(folder: Path, name: str) -> tuple[dict[str, list[Any]], Measured]:
    if not (folder / f"{name}.npz").is_file():
        return {}, {}
    tried = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["tried"]
    with np.load(folder / f"{name}.npz") as arrays:
        return tried, dict(arrays)


def _of_class(backend: str, series: str, tried: Any, read: Any, references: list[str]) -> dict[str, dict[str, Any]]:
    side, (_, logits) = f"{backend} as it is", read[series]
    found: dict[str, dict[str, Any]] = {}
    for field, values in tried.items():
        if field.split(".")[-1] in COMPLETED[series] or field.split(".")[0] in COMPLETED[series]:
            continue
        for reference in references:
            others_tried, others = read[reference]
            if others_tried.get(field) != values:
                continue
            places = [place for place in range(len(values)) if moves(others, REFERENCE, field, place)]
            places = [place for place in places if is_still(logits, side, field, place)]
            if places:
                by_eager = backend == "pt" and not any(is_still(logits, REFERENCE, field, place) for place in places)
                how = "eager" if by_eager else "refused"
                found.setdefault(how, {}).setdefault(field, computed(logits, side, others, field, values))
    return found


def moves(logits: Measured, side: str, field: str, place: int) -> bool:
    """Whether a change of a field changes the logits of a side."""
    changed = logits.get(f"{side}|{field}|{place}")
    return changed is not None and _apart(changed, logits[f"{side}||"]) > MOVED


def is_still(logits: Measured, side: str, field: str, place: int) -> bool:
    """Whether it does not; where there is no such model, the field has been read."""
    changed = logits.get(f"{side}|{field}|{place}")
    return changed is not None and _apart(changed, logits[f"{side}||"]) <= STILL


def computed(logits: Measured, side: str, reference: Measured, field: str, values: list[Any]) -> Any:
    """The value that a class computes with: the default, or another that was tried and fits better."""
    own = logits[f"{side}||"]
    if _apart(own, reference[f"{REFERENCE}||"]) <= SAME:
        return "default"
    for place, value in enumerate(values):
        changed = reference.get(f"{REFERENCE}|{field}|{place}")
        if changed is not None and _apart(changed, own) <= SAME:
            return value
    return "default"


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one - other).max() / np.abs(other).max())


def fields_of(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str, str, Any]]:
    """All entries, one after the other."""
    for backend, by_series in found.items():
        for series, types in by_series.items():
            for name, hows in types.items():
                for how, fields in hows.items():
                    for field, value in fields.items():
                        yield backend, series, name, how, field, value
