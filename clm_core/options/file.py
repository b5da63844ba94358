"""Options in a YAML file: read, and written so that they read back the same."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from clm_core.errors import OptionError
from clm_core.options.declared import changed
from clm_core.options.given import Given, as_pairs, is_section, written_as_pairs

BREAKS = set("\x85\u2028\u2029")
"""Line breaks of Unicode: PyYAML writes them into a value as they are, and does not read them back."""


def from_file(path: Path) -> dict[str, Given]:
    """The options in a flat YAML file; those of a backend are under its name, and are called `backend.option` here.

    Raises:
        OptionError: the file cannot be read, is not YAML, is not flat, or names a key twice.
    """
    import yaml

    try:
        # BaseLoader leaves every scalar as text: the type of the option decides what it means, not YAML's guess.
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"cannot read configuration file {path}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise OptionError(f"{path}, line {line}: not YAML: {error.problem}") from None
    except RecursionError:
        raise OptionError(f"{path} is nested too deeply: expected lines of `option: value`") from None
    except yaml.reader.ReaderError as error:
        raise OptionError(f"{path}: not YAML: {error.reason} (character {error.position + 1})") from None
    return {} if root is None else _mapping(root, path)


def to_yaml(config: Any, sections: Mapping[str, Any], *, every: bool = False) -> str:
    """A configuration as a file that `from_file` reads back to the same values: what differs from the defaults.

    With `every`, that is each option, so that none can come from elsewhere.
    """
    import yaml

    find = partial(changed, every=every)
    content = {**find(config), **{name: find(section) for name, section in sections.items()}}
    content = {key: value for key, value in content.items() if value != {}}
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    if set(text) & BREAKS:
        text = yaml.safe_dump(content, sort_keys=False)
    return text


def _mapping(node: Any, path: Path, section: str = "") -> dict[str, Given]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise OptionError(f"{path}, line {node.start_mark.line + 1}: expected `option: value`")
    given: dict[str, Given] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise OptionError(f"{path}, line {key_node.start_mark.line + 1}: expected `option: value`")
        name, place = f"{section}{key_node.value}", f"{path}, line {key_node.start_mark.line + 1}"
        if name in given:
            raise OptionError(f"{place}: {name} is given twice")
        if isinstance(value_node, yaml.MappingNode) and name.rpartition(".")[2] in written_as_pairs():
            given[name] = Given(as_pairs({key: each.value for key, each in _mapping(value_node, path).items()}), place)
        elif isinstance(value_node, yaml.MappingNode) and not section:
            part = _mapping(value_node, path, section=f"{name}.")
            if twice := sorted(part.keys() & given.keys()):
                raise OptionError(f"{part[twice[0]].place}: {twice[0]} is given twice")
            given |= part if is_section(name, part) else {name: Given({}, place)}
        else:
            given[name] = Given(_plain(value_node, f"{place}: {name}"), place)
    return given


def _plain(node: Any, place: str) -> Any:
    """A string, or a list of strings."""
    items = [item.value for item in node.value] if node.id == "sequence" else [node.value]
    if not all(isinstance(item, str) for item in items):
        raise OptionError(f"{place} must be a value or a list of values, without nesting")
    return items if node.id == "sequence" else node.value
