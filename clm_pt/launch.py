"""Starts workers as torchrun does, by its own launcher, and ends with their exit code: `python -m clm_pt.launch`."""

import logging
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import NoReturn

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousConnectionError
from torch.distributed.run import determine_local_world_size, get_args_parser, parse_min_max_nnodes, run

from clm_core.errors import LostProcessError, OptionError, first_line
from clm_core.launch import mailbox

LONGEST_SAVE = 3600
"""Seconds that workers have to save what they have, after a signal."""


def main(arguments: Sequence[str]) -> int:
    """Start the workers, wait for them, and return the exit code: that of the worker that failed first.

    A signal is passed on to them, and they are waited for.
    """
    if "LOGLEVEL" not in os.environ:
        logging.disable()  # The workers say what there is to say.
    # Otherwise workers that are started again look for those from before, which are gone.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(LONGEST_SAVE))
    try:
        options = _parsed(arguments)
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        each = max(1, processors // determine_local_world_size(options.nproc_per_node))
        os.environ.setdefault("OMP_NUM_THREADS", str(each))
        run(options)
    except ChildFailedError as error:
        return code_of(error.failures)
    except SignalException as error:
        return 128 + error.sigval
    except RendezvousConnectionError:
        return _disconnected(options.rdzv_endpoint or f"{options.master_addr}:{options.master_port}")
    except Exception as error:  # Such as an argument that is none, or other machines that did not come.
        return mailbox.leave(OptionError(f"torchrun: {first_line(error)}"))
    return 0


def check_arguments(arguments: Sequence[str], devices: int) -> None:
    """Make sure that torchrun takes these arguments before the module to start, and starts it for as many `devices`.

    Raises:
        OptionError: it does not.
    """
    given = f"-- {' '.join(arguments)}"
    try:
        parsed = _parsed(["--nproc-per-node", str(devices), *arguments, "-m", "clm_core"])
        parse_min_max_nnodes(parsed.nnodes)
        started = determine_local_world_size(parsed.nproc_per_node)
    except (OptionError, RuntimeError, ValueError) as error:
        raise OptionError(f"{given}: torchrun does not take this: {error}") from None
    if started != devices:
        raise OptionError(f"{given}: nproc_per_node is {devices}: give the number of processes once, before --")


def code_of(failures: Mapping[int, ProcessFailure]) -> int:
    """The exit code of the first failure; as of a shell, 128 + the number of a signal.

    What a signal killed has failed before those that miss it, whichever is found first.
    """
    killed = [failure for failure in failures.values() if failure.exitcode < 0]
    first = min(killed or failures.values(), key=lambda failure: failure.timestamp)
    return first.exitcode if first.exitcode >= 0 else 128 - first.exitcode


def _disconnected(place: str) -> int:
    """The exit code where the machine does not answer at which all meet: none failed, if the workers here were stopped.

    It ends first if it is the one that was stopped.
    """
    if mailbox.take(mailbox.STOPPED) is not None:
        return 0
    return mailbox.leave(
        LostProcessError(
            f"{place}, where the processes meet, does not answer: it has ended, or --rdzv-endpoint names another"
        )
    )


def _parsed(arguments: Sequence[str]) -> Namespace:
    def refuse(message: str) -> NoReturn:
        raise OptionError(message)

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # In a line, rather than with all that torchrun takes.
    return parser.parse_args(list(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
