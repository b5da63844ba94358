"""Which fields a class ignores, from the logits that were measured: clm_core/models/ignored_fields.json, and why."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from shrink import SIZES

FILE = Path(__file__).parents[2] / "clm_core" / "models" / "ignored_fields.json"

MOVED, STILL = 1e-4, 1e-6
"""Of the largest logit: what a field must do in a reference, and cannot do where a class ignores it."""
SAME, ELSEWHERE = 1e-5, 1e-3
"""Two models of the same weights are the same if their logits are no farther apart, and are not if they are farther."""

REFERENCE = "pt eager"
TRANSLATED = {"4.57": ("rope_parameters",), "5": ()}
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
        references = [series for series, (_, measured) in read.items() if f"{REFERENCE}||" in measured]
        for series, (fields, logits) in read.items():
            for backend in ("pt", "tf"):
                if f"{backend} as it is||" in logits:
                    of = _of_class(backend, series, fields, read, references)
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


def _read(folder: Path, name: str) -> tuple[dict[str, Any], Measured]:
    if not (folder / f"{name}.npz").is_file():
        return {}, {}
    fields = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{name}.npz") as arrays:
        return fields, dict(arrays)


def _of_class(backend: str, series: str, fields: Any, read: Any, references: list[str]) -> dict[str, dict[str, Any]]:
    logits = read[series][1]
    found: dict[str, dict[str, Any]] = {}
    for field, own in fields.items():
        if any(name in TRANSLATED[series] for name in field.split(".")):
            continue
        for reference in references:
            others_fields, others = read[reference]
            if others_fields.get(field, {}).get("tried") != own["tried"]:
                continue
            places = range(len(own["tried"]))
            side = f"{backend} as it is"
            if any(is_ignored(logits, side, others, field, place, same=reference == series) for place in places):
                by_eager = backend == "pt" and not any(
                    is_ignored(logits, REFERENCE, others, field, place, same=reference == series) for place in places
                )
                known = computed(logits, side, others, field, own, others_fields[field])
                if known:
                    found.setdefault("eager" if by_eager else "refused", {})[field] = known[0]
    return found


def is_ignored(logits: Measured, side: str, others: Measured, field: str, place: int, *, same: bool) -> bool:
    """Whether a change moves the logits of a reference, and not those of a side, or elsewhere.

    That it moves them elsewhere is seen where the reference is of the `same` series and has the same logits without it;
    where a side makes no model, it has read the field.
    """
    changed, expected = (of.get(f"{name}|{field}|{place}") for of, name in ((logits, side), (others, REFERENCE)))
    if changed is None or expected is None or _apart(expected, others[f"{REFERENCE}||"]) <= MOVED:
        return False
    own = logits[f"{side}||"]
    if _apart(changed, own) <= STILL:
        return True
    comparable = same and field.split(".")[-1] not in SIZES and _apart(own, others[f"{REFERENCE}||"]) <= SAME
    return comparable and _apart(changed, expected) > ELSEWHERE


def computed(logits: Measured, side: str, others: Measured, field: str, own: Any, other: Any) -> tuple[Any, ...]:
    """The value that a class computes with, alone in a tuple; empty where it depends on the size of the model.

    It is the default, or None if the reference then has the same logits, and with the default has not.
    """
    base, without = logits[f"{side}||"], others.get(f"{REFERENCE}|{field}|{len(own['tried']) - 1}")
    differs = _apart(base, others[f"{REFERENCE}||"]) > SAME
    if differs and own["tried"][-1] is None and without is not None and _apart(base, without) <= SAME:
        return (None,)
    return next(((_finite(of["default"]),) for of in (own, other) if "default" in of), ())


def _finite(value: Any) -> Any:
    """A number that JSON has not as transformers 5 writes it."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return {"__float__": str(value)} if isinstance(value, float) and not np.isfinite(value) else value


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
