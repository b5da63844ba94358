"""Whether a name means a local folder or something on the Hub, and how it is written in a command that is printed."""

import shlex
from pathlib import Path

from clm_core.errors import did_you_mean, similar

CONFIGURATION, GENERATION_CONFIG = "config.json", "generation_config.json"
"""The files of a model that describe it, and how to generate with it."""

CACHED = (CONFIGURATION, "tokenizer_config.json", "tokenizer.json")
"""Files of which a model or tokenizer on the Hub has one."""

ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
"""How a shell writes them within $'...'; others it writes as the octal numbers of their bytes."""


def is_path(name: str) -> bool:
    """Whether a name means a local folder: an existing one, or a name that can only be a path."""
    return (
        Path(name).exists()
        or name.startswith((".", "~", "/"))
        or name.endswith("/")
        or "\\" in name
        or name.count("/") > 1
        or ("/" in name and Path(name).parent.is_dir() and not is_cached(name))
    )


def is_cached(name: str, revision: str = "main") -> bool:
    """Whether something of a model of this name was downloaded from the Hub before."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = (try_to_load_from_cache(name, file, revision=revision) for file in CACHED)
        return any(isinstance(path, str) for path in found)
    except HFValidationError:
        return False


def in_command(name: str | Path) -> str:
    """A path, or another name, in a command that is printed: no option, for the shell one word, and on one line."""
    text = str(name)
    return in_shell(f"./{text}" if text.startswith("-") else text)


def in_shell(text: str) -> str:
    """A word of a command, quoted if a shell needs it; what ends a line or cannot be seen is escaped."""
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def likely(name: str, *, file: bool = False) -> str:
    """What a name of a missing folder or file may have meant, as the end of a sentence."""
    path = Path(name)
    if name.startswith("~"):
        return f"; ~ was not expanded here: give {path.expanduser()}"
    while not path.parent.is_dir():
        path, file = path.parent, False
    there = sorted(found.name for found in path.parent.iterdir() if (found.is_file() if file else found.is_dir()))
    shown = [found for found in there if not found.startswith(".") or path.name.startswith(".")]
    near = [path.parent / found for found in similar(path.name, shown)]
    return did_you_mean(*near) or f" (looked in {Path(path.parent).resolve()})"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return ESCAPES.get(character) or "".join(f"\\{byte:03o}" for byte in character.encode(errors="surrogateescape"))
