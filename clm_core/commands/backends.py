"""`clm backends`: list the installed backends, and how to install the others."""

import json

from clm_core import installation
from clm_core.commands.call import Call
from clm_core.registry import Status, list_backends
from clm_core.screen.exit_codes import ExitCode
from clm_core.screen.standard_streams import complain, print_json, show


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    found, strangers = list_backends(), installation.strangers()
    if strangers:
        complain(f"clm: warning: {installation.warning(strangers)}")
    if call.json:
        print_json(json.dumps({status.name: status.problem or "ready" for status in found}))
    else:
        show("\n".join(_lines(found)) or "no backend is installed")
    return ExitCode.DIFFERENT if strangers else ExitCode.DONE


def _lines(found: list[Status]) -> list[str]:
    """The name of each backend, which models it has, how it uses several devices, and whether it can run."""
    rows = [
        (each.name, each.backend.models, each.backend.parallel or "one device") if each.backend else (each.name, "", "")
        for each in found
    ]
    widths = [max(12, *map(len, column)) for column in zip(*rows, strict=True)]
    return [
        " ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)) + f" {each.problem or 'ready'}"
        for row, each in zip(rows, found, strict=True)
    ]
