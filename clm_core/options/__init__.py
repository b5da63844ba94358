"""Options from flags, files and arguments to a dataclass, and back."""

from clm_core.options.declared import Option, changed, list_options, shown
from clm_core.options.file import from_file, to_yaml
from clm_core.options.flags import Once, add_flags, from_flags, to_flags
from clm_core.options.given import Given, Layer, build, from_arguments, unknown

__all__ = [
    "Given",
    "Layer",
    "Once",
    "Option",
    "add_flags",
    "build",
    "changed",
    "from_arguments",
    "from_file",
    "from_flags",
    "list_options",
    "shown",
    "to_flags",
    "to_yaml",
    "unknown",
]
