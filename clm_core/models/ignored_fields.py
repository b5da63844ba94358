"""Configuration fields that a backend's class does not read: corrected if possible, otherwise an error.

ignored_fields.json is made by `nox -s fields`, which changes each field of each model type and compares the logits with
those of a reference. By backend, series of transformers and model type it has the fields, and the value that the class
computes with whatever the configuration says: under `eager` those that are read with eager attention alone, under
`refused` those that are never read. A backend that is not in it, such as a third party's, is not checked.
"""

import functools
import json
from importlib import metadata
from pathlib import Path
from typing import Any

from clm_core.errors import ModelError

FILE = Path(__file__).with_name("ignored_fields.json")

EAGER, REFUSED = "eager", "refused"

Fields = dict[str, dict[str, Any]]


def attention(architecture: Any, backend: str) -> str | None:
    """`eager` where a model has to be made with this attention to be what its configuration says; else None.

    Raises:
        ModelError: it would be another model even so; the field is named.
    """
    ignored = _ignored(architecture.model_type, backend)
    for field, computed in ignored.get(REFUSED, {}).items():
        found = _found(architecture, field, computed)
        if not _same(found, computed):
            raise ModelError(
                f"model type {architecture.model_type}: the field {field} of its configuration is {found!r}, and the "
                f"class that backend {backend} has for it computes with {computed!r} whatever it says: use another "
                f"backend or series of transformers, or set {field} to {json.dumps(computed)} if that is what you mean"
            )
    read = all(_same(_found(architecture, *field), field[1]) for field in ignored.get(EAGER, {}).items())
    return None if read else EAGER


def _ignored(model_type: str, backend: str) -> Fields:
    found: Fields = _read().get(backend, {}).get(_series(), {}).get(model_type, {})
    return found


@functools.cache
def _read() -> dict[str, dict[str, dict[str, Fields]]]:
    found: dict[str, dict[str, dict[str, Fields]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def _series() -> str:
    """As the file calls it: the last 4 that there was, or the number of a later one."""
    major = metadata.version("transformers").split(".")[0]
    return "4.57" if major == "4" else major


def _found(architecture: Any, field: str, computed: Any) -> Any:
    """What a configuration says, by a dotted path; what it does not say is what the class computes with."""
    value = architecture
    for name in field.split("."):
        value = value.get(name, computed) if isinstance(value, dict) else getattr(value, name, computed)
    return value


def _same(one: Any, other: Any) -> bool:
    one, other = _plain(one), _plain(other)
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _plain(value: Any) -> Any:
    """As JSON has it, and with the numbers that JSON has not, which transformers 5 writes as `{"__float__": "inf"}`."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return float(value["__float__"]) if isinstance(value, dict) and value.keys() == {"__float__"} else value
