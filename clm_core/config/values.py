"""Checks for the values of options: ranges, encodings, licenses."""

import codecs
import math
import re
from collections.abc import Callable
from typing import Any

from clm_core.shards import Shard

_NUMBER = r"\d+(?:\.\d*)?"

Check = Callable[[Any], str | None]
"""Takes a value and says what it must be, or None if it is that."""

ALL_LINEAR = "all-linear"
"""What stands for all dense layers but the output layer, as in peft."""

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", re.ASCII)
"""As Slurm writes a time: D-HH:MM:SS, or HH:MM:SS."""

_TIME = re.compile("".join(rf"(?:({_NUMBER})\s*{unit})?\s*" for unit in "dhms"), re.ASCII)

FLOAT32 = 3.4028234663852886e38
"""The largest number of float32."""


def at_least(least: int) -> Check:
    """The value is a number no smaller than `least`."""
    return lambda value: None if math.isfinite(value) and value >= least else f"at least {least}"


def between(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> Check:
    """The value lies between two numbers, which count unless they are open."""

    def check(value: float) -> str | None:
        above = value > low if open_low else value >= low
        below = value < high if open_high else value <= high
        if above and below:
            return None
        lower, upper = "more than" if open_low else "at least", "less than" if open_high else "at most"
        return f"{lower} {low:g} and {upper} {high:g}"

    return check


def positive(value: float) -> str | None:
    """The value is a finite number above zero."""
    return None if math.isfinite(value) and value > 0 else "a finite number above 0"


def not_negative(value: float) -> str | None:
    """The value is a finite number, zero or above."""
    return None if math.isfinite(value) and value >= 0 else "a finite number, 0 or above"


def limit(value: float) -> str | None:
    """The value is a finite number above zero, or the 0 that means no limit."""
    return None if math.isfinite(value) and value >= 0 else "a finite number above 0, or 0 for no limit"


def in_float32(check: Check) -> Check:
    """The value passes another check, and is not beyond the numbers of weights, gradients and updates."""
    return lambda value: check(value) or (None if value <= FLOAT32 else f"at most {FLOAT32:g}")


def positive_or_unlimited(value: int) -> str | None:
    """The value is above zero, or the -1 that means no limit."""
    return None if value > 0 or value == -1 else "above 0, or -1 for no limit"


def seconds(text: str) -> float:
    """The seconds of a time such as `8h`, `1d12h`, `1h30m15s`, `1:30:00` or `1-12:00:00`, or of a plain number of them.

    Raises:
        ValueError: it is no time.
    """
    found = _CLOCK.fullmatch(text.strip()) or (text and _TIME.fullmatch(text.strip()))
    if not found:
        return float(text)
    return sum(float(part or 0) * unit for part, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


def duration(value: str) -> str | None:
    """The value is a time above 0."""
    try:
        is_time = 0 < seconds(value) < math.inf
    except ValueError:
        is_time = False
    return (
        None
        if is_time
        else "a time, such as 8h, 90m, 45s, 1h30m, 1:30:00 (hours, minutes, seconds), or a number of seconds"
    )


def devices(value: str) -> str | None:
    """The value says how many devices: a number, or all GPUs."""
    is_number = value.isascii() and value.isdigit() and int(value) > 0
    return None if is_number or value == "gpu" else "a number above 0, or `gpu` for all GPUs of the machine"


def module_names(value: tuple[str, ...]) -> str | None:
    """The values can be names of modules, each given once."""
    if any(not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name) for name in value):
        return "names of modules, separated by spaces, such as q_proj v_proj"
    return None if len(set(value)) == len(value) else "names of modules, each of them once"


def target_modules(value: tuple[str, ...]) -> str | None:
    """The values can be names of modules, or stand for all of them."""
    if ALL_LINEAR in value and len(value) > 1:
        return f"names of modules, or {ALL_LINEAR} alone"
    return module_names(value)


def parts(value: tuple[str, ...]) -> str | None:
    """The values are patterns for parts of a model; what begins with `layers:` names them by their numbers."""
    numbers = re.compile(r"layers:-?\d+(--?\d+)?")
    wrong = any(not part.strip() or (part.startswith("layers:") and not numbers.fullmatch(part)) for part in value)
    return "names of parts; layers are `layers:3`, `layers:0-5` or `layers:-1`" if wrong else None


def shard(value: str) -> str | None:
    """The value names one of several shards."""
    try:
        Shard.parse(value)
    except ValueError:
        return "a shard of several, such as 1/4"
    return None


def license_name(value: str) -> str | None:
    """The value can be the Hub's name of a licence."""
    named = re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", value)
    return None if named else "a licence by its name on the Hub, in lower case, such as apache-2.0"


def encoding(value: str) -> str | None:
    """The value names an encoding of text that Python has."""
    try:
        "".encode(value)
        codecs.getincrementaldecoder(value)
    except (LookupError, ValueError):
        return "an encoding of text, such as utf-16-le, cp1252, latin-1 or shift_jis"
    return None


def delimiter(value: str) -> str | None:
    """The value is a character that can stand between fields, or the name of one."""
    known = value in ("auto", "tab") or (len(value) == 1 and value not in '\n\r"')
    return None if known else "one character, or `tab`, or `auto`"
