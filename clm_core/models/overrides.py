"""`config_overrides`: rebuilds a configuration with changed fields, and those that its class derives.

A width of heads, or a list of the layers' types, follows from other fields where nobody has set it. To change fields of
an existing configuration would leave it unchanged: a different model than requested, and different in each series.
"""

import copy
import json
from collections.abc import Callable
from typing import Any

from clm_core.counts import with_noun
from clm_core.errors import OptionError, did_you_mean, similar
from clm_core.models.named_values import check_name
from clm_core.models.rotation import WHOLE, check_rotation, with_rotation
from clm_core.models.series import translated
from clm_core.models.sizes import LAYERS, WIDTHS, check_override, decides_shapes

Fields = dict[str, Any]

ALIASES = {"gpt2": {"n_ctx": "n_positions"}}
"""By model type: fields that transformers does not know, which other programs have for one that it knows."""


def overridden(architecture: Any, overrides: str) -> Any:
    """The configuration with the fields that are named, as `name=value,name=value`, and those that follow from them.

    Raises:
        OptionError: a field is unknown, its value is not one of its kind or cannot be, or it would change nothing.
    """
    split(overrides)  # What it says has the name of the option already.
    try:
        values = _parsed(architecture, overrides)
        fields, asked = with_rotation(architecture.to_dict(), _not_derived(architecture), values)
        new = _built(architecture, fields)
        check_rotation(asked, new.to_dict())
        for name in values.keys() & fields.keys():
            if not (asked and name in WHOLE):
                _check_effect(architecture, new, name, values[name], fields)
    except OptionError as error:
        raise OptionError(f"config_overrides {overrides!r}: {error}") from None
    except Exception as error:  # A class may raise anything about values that do not fit together.
        # Its last line says what is wrong; a validator's first one has the name of the field alone.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise OptionError(f"config_overrides {overrides!r}: {reason}") from None
    return new


def overridden_checkpoint(architecture: Any, overrides: str, say: Callable[[str], None]) -> Any:
    """The same for a model that has weights, which are made for some of its fields; `say` hears what changes.

    Raises:
        OptionError: such a field would change; or as above.
    """
    new = overridden(architecture, overrides)
    before, after = architecture.to_dict(), new.to_dict()
    changed = [name for name in after if name in before and after[name] != before[name]]
    changed += [name for name in after.keys() - before.keys() if name != "transformers_version"]
    given = {_aliases(architecture).get(name, name): name for name in split(overrides)}
    for name in changed:
        if decides_shapes(architecture, name):
            way_out = "; --resize-embeddings adds what a tokenizer needs" if name == "vocab_size" else ""
            raise OptionError(
                f"config_overrides: {given.get(name, name)} {_short(before.get(name))} -> {_short(after[name])}: the "
                f"weights of the model are made for {_short(before.get(name))}: leave it out{way_out}"
            )
        say(f"config_overrides: {name} {_short(before.get(name))} -> {_short(after[name])}")
    for name in [name for name in given if name in before and name not in changed]:
        say(f"config_overrides: {given[name]} is {_short(after[name])} already")
    if not changed:
        say("config_overrides changes nothing: the configuration of the model is so already")
    return new


def split(overrides: str) -> dict[str, str]:
    """The text of each value by the name that was given; a comma in brackets or quotes is one of JSON.

    Raises:
        OptionError: it is not of the form `name=value,name=value`.
    """
    found: dict[str, str] = {}
    shown = f"config_overrides {overrides!r}"
    for pair in _pairs(overrides):
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not (name and equals and text):
            raise OptionError(f"{shown}: {pair!r} is not of the form name=value, with a comma between two")
        if found.setdefault(name, text) != text:
            raise OptionError(f"{shown}: {name} is given twice: {found[name]} and {text}")
    return found


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
        f"{kind}: head_dim is {each} by default, so "
        f"{with_noun(heads, 'head is', 'heads are')} {each * heads} wide in a model of {width}; "
        f"head_dim={width // heads} makes them as wide as the model"
    )


def _pairs(overrides: str) -> list[str]:
    parts, depth, quoted = [""], 0, False
    for sign in overrides:
        quoted ^= sign == '"'
        depth += 0 if quoted else (sign in "[{") - (sign in "]}")
        if sign == "," and not (depth or quoted):
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _parsed(architecture: Any, overrides: str) -> Fields:
    values: Fields = {}
    names: dict[str, str] = {}
    aliases = _aliases(architecture)
    for given, text in split(overrides).items():
        name = aliases.get(given, given)
        old = getattr(architecture, name, None)
        value = _typed(given, old, text)
        check_override(given, name, value)
        if hasattr(architecture, name):
            check_name(given, name, old, value)
        if values.setdefault(name, value) != value:
            raise OptionError(f"{names[name]} and {given} are the same field: give one of them")
        names[name] = given
    return values


def _aliases(architecture: Any) -> dict[str, str]:
    return {**architecture.attribute_map, **ALIASES.get(architecture.model_type, {})}


def _typed(name: str, old: Any, text: str) -> Any:
    if text.lower() in ("null", "none") and not isinstance(old, bool | float) and name not in LAYERS | WIDTHS:
        return None
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
    if old is not None and not (isinstance(old, dict | list | tuple) and text[0] in "[{"):
        raise OptionError(
            f"{name} is a {type(old).__name__}: set it in a config.json, and give that as --config-name, or give JSON"
        )
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


def _knows(architecture: Any, name: str) -> bool:
    """Whether its class has a field; a file may have any others, which nothing reads."""
    return hasattr(architecture, name) and hasattr(type(architecture)(), name)


def _check_effect(architecture: Any, new: Any, name: str, value: Any, fields: Fields) -> None:
    """Make sure that a value is there, or in a field that stands for it."""
    kind = architecture.model_type
    if _knows(architecture, name):
        found = getattr(new, name)
        if (list(found) if isinstance(found, tuple) else found) != value:
            raise OptionError(f"{name} stays {found} instead of {value}: {kind} derives it from other fields")
        return
    without = _built(architecture, {key: item for key, item in fields.items() if key != name}).to_dict()
    changed = {key for key, item in new.to_dict().items() if item != without.get(key)}
    if changed <= {name}:
        hint = did_you_mean(*similar(name, _public(architecture), most=3))
        raise OptionError(f"{kind} has no field {name}{hint}")
    if isinstance(value, str):
        raise OptionError(f"{name} is a number, not {value}")


def _public(architecture: Any) -> list[str]:
    return [name for name in (*vars(architecture), *architecture.attribute_map) if not name.startswith("_")]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 300 else f"{text[:300]}..."
