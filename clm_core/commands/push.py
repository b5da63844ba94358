"""`clm push`: upload a run or prepared data to the Hub, or resume an upload."""

from clm_core.commands import summary
from clm_core.commands.call import Call, code_of_upload
from clm_core.hub.pushing import push
from clm_core.options import resolve
from clm_core.screen.exit_codes import ExitCode


def run(call: Call) -> ExitCode:
    """Carry out the command line."""
    with call.progress() as progress:
        done = push(call.folder, resolve.publication(call.given), progress)
    call.print(done, lambda: "\n".join(summary.of_publication(done)))
    return code_of_upload(done)
