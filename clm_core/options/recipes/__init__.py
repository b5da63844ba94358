"""Configuration files that come with clm, found by name or path."""

import difflib
from pathlib import Path

from clm_core.errors import OptionError
from clm_core.paths import likely

FOLDER = Path(__file__).parent


def list_recipes() -> list[str]:
    """The names of the bundled recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(name: str | Path) -> Path:
    """The file of a bundled recipe, or the file at a path.

    Raises:
        OptionError: there is neither; with the names of the recipes.
    """
    if str(name) in list_recipes():
        return FOLDER / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    raise OptionError(
        f"--config {name}: no such file; the bundled recipes are {', '.join(list_recipes())}{_hint(str(name))}"
    )


def _hint(name: str) -> str:
    if near := difflib.get_close_matches(name, list_recipes(), n=1):
        return f"; did you mean {near[0]}?"
    if inside := sorted(Path(name).glob("*.yaml")):  # The folder of a run has one.
        return f"; did you mean {inside[0]}?"
    return likely(name, file=True)
