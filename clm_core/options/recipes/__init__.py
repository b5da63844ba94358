"""Configuration files that come with clm, found by name or path."""

from pathlib import Path

from clm_core.errors import OptionError, did_you_mean, similar
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
    inside = sorted(Path(name).glob("*.yaml"))[:1]  # The folder of a run has one.
    return did_you_mean(*(similar(name, list_recipes()) or inside)) or likely(name, file=True)
