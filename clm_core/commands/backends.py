"""`clm backends`: list the installed backends, and how to install the others."""

import json

from clm_core import installation
from clm_core.commands.call import Call
from clm_core.registry import list_backends
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
        lines = [f"{status.name:12} {status.problem or 'ready'}" for status in found]
        show("\n".join(lines) or "no backend is installed")
    return ExitCode.DIFFERENT if strangers else ExitCode.DONE
