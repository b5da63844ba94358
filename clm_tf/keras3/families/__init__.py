"""The model types that `Decoder` computes: what each reads in its configuration, and what PyTorch calls its parts."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from clm_core.errors import ModelError
from clm_tf.keras3.families import of_gemma, of_gpt, of_llama
from clm_tf.keras3.layout import Facts, Fields, Layout

FAMILIES: Mapping[str, Callable[[Fields], Facts]] = of_llama.TYPES | of_gemma.TYPES | of_gpt.TYPES
"""By model type: what its configuration says, as fields of a `Layout`."""

MODEL_TYPES = frozenset(FAMILIES)


def layout(architecture: Any) -> Layout:
    """The layout of a `transformers.PretrainedConfig`, as transformers 4.57 or 5 has it.

    Raises:
        ModelError: its model type is none of `MODEL_TYPES`, or a field says what is not known here.
    """
    fields = Fields(fields_of(architecture))
    found = _read(fields)
    changed = json.loads(architecture.to_json_string(use_diff=True))
    for name in sorted(fields.unread() & changed.keys()):
        if changed[name] not in (None, False):
            raise fields.refused(name, changed[name])
    return found


def fields_of(architecture: Any) -> Facts:
    """All fields of a configuration, as in a config.json that has them all."""
    found: Facts = json.loads(architecture.to_json_string(use_diff=False))
    return found


def layout_of_fields(fields: Mapping[str, Any]) -> Layout:
    """The layout of what `fields_of` returned earlier."""
    return _read(Fields(fields))


def _read(fields: Fields) -> Layout:
    kind = fields["model_type"]
    if kind not in FAMILIES:
        raise ModelError(
            f"model type {kind}: backend keras does not have it; it has {', '.join(sorted(FAMILIES))}. "
            "Use --backend pt, which has all of transformers'"
        )
    try:
        return Layout(model_type=kind, **FAMILIES[kind](fields))
    except KeyError as error:
        raise ModelError(f"model type {kind}: there is no {error} in its configuration") from error
