"""The parameters of rotary embeddings in a configuration, changed by their names in either series of transformers."""

from typing import Any

from clm_core.errors import OptionError, did_you_mean, similar
from clm_core.models.series import FULL, PLAIN, ROPES, SLIDING, TYPES, Fields, Rope, named_type

WHOLE = ("rope_scaling", "rope_parameters")
"""What transformers 4.57 and 5 call them; 4.57 has the theta and the share that rotates in fields of their own."""
APART = ("rope_theta", "partial_rotary_factor")


def rotation(fields: Fields) -> Fields | None:
    """What a configuration says of its layers, or of those with full attention; None if it rotates nothing."""
    if "rope_parameters" in fields:
        found: Fields = fields["rope_parameters"] or {}
        full: Fields = found.get(FULL, found)
        return named_type(full)
    if "rope_scaling" not in fields:
        return None
    rope = ROPES.get(fields["model_type"], Rope())
    apart = dict(zip(APART, (_at(fields, rope.theta), _at(fields, rope.partial)), strict=True))
    return {**named_type(fields["rope_scaling"] or PLAIN), **{name: it for name, it in apart.items() if it is not None}}


def with_rotation(fields: Fields, kept: Fields, values: Fields) -> tuple[Fields, Fields]:
    """The fields to build a configuration from, and what of their rotation was asked for.

    `fields` are those that there are, `kept` those of them that others do not follow from, `values` those asked for.
    What is asked of a rotation leaves its theta, and the share that rotates, as they are, unless it names them.

    Raises:
        OptionError: it is no dictionary, or of a type that there is not; or it is given twice.
    """
    old, given = rotation(fields), [name for name in WHOLE if name in values]
    in_one = [name for name in APART if name in values and name not in fields]
    if old is None and given:
        raise OptionError(f"{fields['model_type']} has no field {given[0]}: it rotates nothing")
    if old is None or not (given or in_one):
        return {**kept, **values}, {}
    if len(given) > 1:
        raise OptionError(f"{' and '.join(given)} are the same field: give one of them")
    asked = _checked(given[0], values[given[0]], old) if given else dict(old)
    for name in in_one:
        if not isinstance(values[name], int | float):
            raise OptionError(f"{name} is a number, not {values[name]}")
        asked[name] = values[name]
    rest = {name: value for name, value in {**kept, **values}.items() if name not in (*WHOLE, *in_one)}
    if any(isinstance(value, dict) for value in asked.values()):  # By the types of layers.
        return {**rest, "rope_parameters": asked}, asked.get(FULL, {})
    whole = {**{name: old[name] for name in APART if name in old and name not in rest}, **asked}
    return {**rest, "rope_parameters": _for_all(fields.get("rope_parameters"), old, whole, in_one)}, asked


def check_rotation(asked: Fields, new: Fields) -> None:
    """Make sure that a new configuration has what was asked for.

    Raises:
        OptionError: it has not.
    """
    found = rotation(new) or {}
    for name, value in asked.items():
        if value is not None and found.get(name) != value:
            raise OptionError(f"{name} of the rotation stays {found.get(name)} instead of {value}")


def _checked(name: str, value: Any, old: Fields) -> Fields:
    if value is None:
        return dict(PLAIN)
    if not isinstance(value, dict):
        raise OptionError(f'{name} is a dictionary in JSON, such as {{"rope_type":"linear","factor":2.0}}, not {value}')
    parts = [part for part in value.values() if isinstance(part, dict)] or [value]
    for part in map(named_type, parts):
        if part["rope_type"] not in (*TYPES, old["rope_type"]):
            hint = did_you_mean(*similar(str(part["rope_type"]), TYPES))
            raise OptionError(f"{name}: rope_type {part['rope_type']!r} is none of {', '.join(TYPES)}{hint}")
    return value if parts != [value] else named_type(value)


def _for_all(before: Any, old: Fields, whole: Fields, in_one: list[str]) -> Fields:
    """The parameters for all layers: where those with a window have their own, they get a theta that both had."""
    if not before or FULL not in before:
        return whole
    sliding = dict(before.get(SLIDING) or {})
    sliding.update({name: whole[name] for name in in_one if sliding.get(name) == old.get(name)})
    return {**before, FULL: whole, **({SLIDING: sliding} if sliding else {})}


def _at(fields: Fields, path: str) -> Any:
    found: Any = fields
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else getattr(found, name, None)
    return found
