"""Suggestions for an unknown option or command: a near name, or what other programs call it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clm_core.config import COMMANDS
from clm_core.errors import did_you_mean, similar
from clm_core.options.declared import list_options
from clm_core.paths import CONFIGURATION, in_command
from clm_core.registry import list_backends

TABLE = Path(__file__).with_name("elsewhere.yaml")

CLOSE = 0.75
"""How similar two names are (`difflib`) for one to be a typo of the other; `batch_size` is not `block_size`."""

DATA = (
    *(".txt", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"),
    *(".gz", ".bz2", ".xz", ".zst"),
)
"""The endings of the files that clm reads."""


def table() -> dict[str, dict[str, Any]]:
    """Names from other programs: options, each with what to use or know here, and commands, each with ours.

    Also options that a command here does not have, each with the reason.
    """
    import yaml

    found: dict[str, dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return found


def of_option(name: str, known: Iterable[str], *, as_flag: bool) -> str:
    """What to use instead of an option that does not exist, after a semicolon; empty if nothing is similar."""
    known, written = list(known), (_flag if as_flag else str)
    if name in known:  # Written otherwise, such as with an underscore.
        return did_you_mean(written(name))
    elsewhere = table()["options"].get(name.lower(), {})
    if "say" in elsewhere and elsewhere.get("of") in (None, *known):
        return f"; {elsewhere['say']}"
    if why := next((why["say"] for why in table()["not_here"].get(name, ()) if why["of"] in known), None):
        return f"; {why}"
    uses = elsewhere.get("use", "").split(" or ")
    if here := [option for option in uses if option in known]:
        return f"; here it is {written(here[0])}"
    if not elsewhere and name not in commands_with() and (near := _near(name, known)):
        return did_you_mean(*map(written, near))
    if own := _of_backend(name, known, as_flag=as_flag):
        return did_you_mean(own)
    meant = uses[0] or name
    commands = commands_with().get(meant)
    return f"; {written(meant)} is an option of clm {', clm '.join(commands)}" if commands else ""


def of_command(name: str, commands: Iterable[str]) -> str:
    """What to run instead of a command that does not exist, after a semicolon."""
    if Path(name).is_file() or name.lower().endswith(DATA):
        return f"; to train on a file: clm train --train-file {in_command(name)}"
    if Path(name, CONFIGURATION).is_file():
        return f"; to use a model: clm generate --model-name-or-path {in_command(name)}"
    if command := table()["commands"].get(name.lower()):
        return f"; here it is `{command}`"
    near = [f"clm {found}" for found in similar(name, commands)]
    return did_you_mean(*near) or f"; the commands are {', '.join(commands)}"


def commands_with() -> Mapping[str, list[str]]:
    """The commands that take each option; `config` is one of a command that reads a file of them."""
    found: dict[str, list[str]] = {}
    for name, command in COMMANDS.items():
        options = [option.name for option in list_options(command.config)] if command.config else []
        for option in [*options, *["config"] * bool(options and command.reads_config)]:
            found.setdefault(option, []).append(name)
    return found


def _near(name: str, known: list[str]) -> list[str]:
    """The options that this may be a typo of, or a part of whose name it may be."""
    slips = similar(name, known, most=3, cutoff=CLOSE)
    words = set(name.split("_"))
    whole = [option for option in known if len(words) > 1 and words <= set(option.split("_"))]
    return list(dict.fromkeys([*slips, *whole]))[:3]


def _of_backend(name: str, known: list[str], *, as_flag: bool) -> str | None:
    """The backend-specific option of this name, for a command that has those."""
    if "num_train_epochs" not in known:
        return None
    for status in list_backends():
        if status.backend and name in {option.name for option in list_options(status.backend.options)}:
            return _flag(f"{status.name}_{name}") if as_flag else f"{name} under {status.name}"
    return None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
