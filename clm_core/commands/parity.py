"""`clm parity`: train with two backends and compare them step by step."""

from clm_core.commands.call import Call
from clm_core.commands.first_look import look
from clm_core.comparison import table
from clm_core.comparison.compare import compare
from clm_core.options import resolve
from clm_core.screen.exit_codes import ExitCode


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    request = resolve.parity(call.given, file=call.config)
    look(request.config)
    with call.progress() as progress:
        result = compare(request, progress)
    call.print(result, lambda: table.of_parity(result))
    return ExitCode.DIFFERENT if result.parted else ExitCode.DONE
