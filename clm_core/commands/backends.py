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
    """The name of each backend, which models it has, and whether it can run."""
    models = [status.backend.models if status.backend else "" for status in found]
    width = max(map(len, models), default=0)
    return [
        f"{status.name:12} {has:{width}} {status.problem or 'ready'}" for status, has in zip(found, models, strict=True)
    ]
