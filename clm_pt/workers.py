"""Which of the processes this one is, as whoever started it says in the environment, and how clm starts them itself."""

import os
import sys
from collections.abc import Sequence

from clm_core.backend import ALONE, World
from clm_core.counts import with_noun
from clm_core.errors import OptionError

STARTED_BY = os.getppid()
"""The process that started this one, as long as it lives."""

OF_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers of MPI say how many processes they have started."""

ELSEWHERE = ("nnodes", "rdzv-backend", "rdzv-endpoint", "rdzv-id", "master-addr", "master-port", "node-rank")
"""Options of torchrun that say where processes meet that it does not start itself."""

STATIC = ("rdzv-backend", "master-addr", "master-port", "node-rank")
"""Those with which torchrun does not need to be told how they meet."""


def world(nproc_per_node: str | None) -> World:
    """The devices that train together, and which of them this process has.

    A worker, such as torchrun and accelerate start, has LOCAL_RANK. For any other process, these are the devices that
    workers are to be started for.

    Raises:
        OptionError: several processes were started in a way in which they cannot find each other, or otherwise than
            `nproc_per_node` says, or there are not as many GPUs.
    """
    if is_worker():
        return _of_worker(nproc_per_node)
    if nproc_per_node is not None:
        return World(size=_devices(nproc_per_node))
    for name in ("WORLD_SIZE", *OF_MPI):
        if (started := _number(name, default=1)) > 1:
            raise OptionError(
                f"{name} is {started} and LOCAL_RANK is not set: start with torchrun, or give --nproc-per-node"
            )
    return ALONE


def accelerators() -> int:
    """How many GPUs PyTorch finds."""
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def device_name() -> str | None:
    """What its maker calls the GPU that PyTorch uses; None if it uses none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def is_worker() -> bool:
    """Whether this process is one of those that torchrun, or another launcher for PyTorch, has started."""
    return "LOCAL_RANK" in os.environ


def launcher(nproc_per_node: str, arguments: Sequence[str]) -> list[str] | None:
    """The command that starts a worker for each device of this machine; None if this process is one, or the only one.

    `arguments` are torchrun's own. Without them, the workers meet on this machine.

    Raises:
        OptionError: torchrun does not take them, or there are not as many GPUs.
    """
    if is_worker():
        return None
    devices = _devices(nproc_per_node)
    given = {argument.removeprefix("--").partition("=")[0].replace("_", "-") for argument in arguments}
    given |= {name for name in ELSEWHERE if f"PET_{name.replace('-', '_').upper()}" in os.environ}
    if devices == 1 and not arguments and not given:
        return None
    meeting: list[str] = []
    if not given.intersection(ELSEWHERE):
        meeting = ["--standalone"]
    elif not given.intersection(STATIC):
        meeting = ["--rdzv-backend", "c10d"]  # The other way fails after a restart.
    if arguments:
        from clm_pt.launch import check_arguments

        check_arguments(arguments, devices)
    return [sys.executable, "-m", "clm_pt.launch", "--nproc-per-node", str(devices), *meeting, *arguments]


def _of_worker(nproc_per_node: str | None) -> World:
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    if not 0 <= rank < size:
        raise OptionError(f"RANK is {rank} and WORLD_SIZE is {size}: start with torchrun, which counts from 0")
    if size > 1 and (absent := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]):
        raise _incomplete(absent[0])
    here = os.environ.get("LOCAL_WORLD_SIZE")
    if nproc_per_node not in (None, "gpu", here) and here is not None:
        there = with_noun(int(here), "process", "processes")
        raise OptionError(
            f"nproc_per_node {nproc_per_node}: the launcher has started {there} on this machine: leave it out, or give "
            "the launcher the same number"
        )
    return World(rank=rank, size=size, attempt=_number("TORCHELASTIC_RESTART_COUNT", default=0))


def _number(name: str, *, default: int | None = None) -> int:
    found = os.environ.get(name)
    if found is None and default is not None:
        return default
    if found is None:
        raise _incomplete(name)
    try:
        return int(found)
    except ValueError:
        raise OptionError(f"{name} is {found!r}, not a number: start with torchrun, or unset it") from None


def _incomplete(name: str) -> OptionError:
    return OptionError(
        f"LOCAL_RANK is set, as in a process of torchrun, and {name} is not: start with torchrun, or unset LOCAL_RANK"
    )


def _devices(nproc_per_node: str) -> int:
    """How many there are to be on this machine."""
    if nproc_per_node == "1":
        return 1
    gpus = accelerators()
    if nproc_per_node == "gpu":
        if not gpus:
            raise OptionError("nproc_per_node gpu: PyTorch finds no GPU here: give a number, to train on the CPU")
        return gpus
    asked = int(nproc_per_node)
    if 0 < gpus < asked:
        raise OptionError(
            f"nproc_per_node {asked}: PyTorch finds only {with_noun(gpus, 'GPU')} here: give {gpus} or fewer"
        )
    return asked
