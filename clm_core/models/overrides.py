"""`config_overrides`: rebuilds a configuration with changed fields, and those that its class derives.

A width of heads, or a list of the layers' types, follows from other fields where nobody has set it. To change fields of
an existing configuration would leave it unchanged: a different model than requested, and different in each series.
"""

import copy
import json
from typing import Any

from clm_core.errors import OptionError, did_you_mean, similar
from clm_core.models.series import translated
from clm_core.models.sizes import check_override

Fields = dict[str, Any]

ALIASES = {"gpt2": {"n_ctx": "n_positions"}}
"""By model type: fields that transformers does not know, which other programs have for one that it knows."""


def overridden(architecture: Any, overrides: str) -> Any:
    """The configuration with the fields that are named, as `name=value,name=value`, and those that follow from them.

    Raises:
        OptionError: a field is unknown, its value is not one of its kind or cannot be, or it would change nothing.
    """
    try:
        values = _parsed(architecture, overrides)
        kept = _not_derived(architecture)
        new = _built(architecture, {**kept, **values})
        for name, value in values.items():
            _check_effect(architecture, new, name, value, {**kept, **values})
    except OptionError as error:
        raise OptionError(f"config_overrides {overrides!r}: {error}") from None
    except Exception as error:  # A class may raise anything about values that do not fit together.
        # Its last line says what is wrong; a validator's first one has the name of the field alone.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise OptionError(f"config_overrides {overrides!r}: {reason}") from None
    return new


def add_aliases(architecture: Any) -> None:
    """Set the fields that other programs look for to the value of the field that transformers has for them."""
    for alias, name in ALIASES.get(architecture.model_type, {}).items():
        setattr(architecture, alias, getattr(architecture, name))


def width_of_heads(architecture: Any, overrides: str) -> str | None:
    """The sentence that says that the heads are not as wide as the model, where only the model's width was changed."""
    names = [architecture.attribute_map.get(name, name) for name in ("hidden_size", "num_attention_heads", "head_dim")]
    width, heads, each = (getattr(architecture, name, None) for name in names)
    changed = _parsed(architecture, overrides)
    if not (width and heads and each) or names[2] in changed or not changed.keys() & set(names):
        return None
    if each * heads == width or width % heads or hasattr(architecture, "kv_lora_rank"):
        return None
    kind = architecture.model_type
    return (
        f"{kind}: head_dim is {each} by default, so {heads} heads are {each * heads} wide in a model of {width}; "
        f"head_dim={width // heads} makes them as wide as the model"
    )


def _parsed(architecture: Any, overrides: str) -> Fields:
    values: Fields = {}
    names: dict[str, str] = {}
    aliases = {**architecture.attribute_map, **ALIASES.get(architecture.model_type, {})}
    for pair in overrides.split(","):
        given, equals, text = (part.strip() for part in pair.partition("="))
        if not (given and equals and text):
            raise OptionError(f"{pair!r} is not of the form name=value, with a comma between two")
        name = aliases.get(given, given)
        value = _typed(given, getattr(architecture, name, None), text)
        check_override(given, name, value)
        if values.setdefault(name, value) != value:
            raise OptionError(f"{names[name]} and {given} are the same field: give one of them")
        names[name] = given
    return values


def _typed(name: str, old: Any, text: str) -> Any:
    if isinstance(old, bool):
        if text.lower() not in ("true", "1", "y", "yes", "false", "0", "n", "no"):
            raise OptionError(f"{name} is true or false, not {text}")
        return text.lower() in ("true", "1", "y", "yes")
    if isinstance(old, int | float):
        try:
            return type(old)(text)
        except ValueError:
            raise OptionError(f"{name} is {_called(old)}, not {text}") from None
    if isinstance(old, str):
        return text
    if old is not None:
        raise OptionError(f"{name} is a {type(old).__name__}: set it in a config.json, and give that as --config-name")
    try:
        return json.loads(text)  # A field that has no value does not say of what kind it is.
    except ValueError:
        return text


def _called(old: Any) -> str:
    return "a whole number" if isinstance(old, int) else "a number"


def _built(architecture: Any, fields: Fields) -> Any:
    return type(architecture).from_dict(translated({"model_type": architecture.model_type, **copy.deepcopy(fields)}))


def _not_derived(architecture: Any) -> Fields:
    """The fields without which the class would not come to the same configuration by itself."""
    fields = architecture.to_dict()
    needed = {name: value for name, value in fields.items() if not _derives(architecture, fields, name)}
    return needed if _built(architecture, needed).to_dict() == fields else fields


def _derives(architecture: Any, fields: Fields, name: str) -> bool:
    try:
        found = _built(architecture, {key: value for key, value in fields.items() if key != name}).to_dict()
    except Exception:  # It cannot be built without it.
        return False
    return name in found and bool(found[name] == fields[name])


def _check_effect(architecture: Any, new: Any, name: str, value: Any, fields: Fields) -> None:
    """Make sure that a value is there, or in a field that stands for it."""
    kind = architecture.model_type
    if hasattr(architecture, name):
        if (found := getattr(new, name)) != value:
            raise OptionError(f"{name} stays {found} instead of {value}: {kind} derives it from other fields")
        return
    without = _built(architecture, {key: item for key, item in fields.items() if key != name}).to_dict()
    changed = {key for key, item in new.to_dict().items() if item != without.get(key)}
    if changed <= {name}:
        hint = did_you_mean(*similar(name, [*vars(architecture), *architecture.attribute_map], most=3))
        raise OptionError(f"{kind} has no field {name}{hint}")
    if isinstance(value, str):
        raise OptionError(f"{name} is a number, not {value}")
