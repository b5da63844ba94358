"""Which devices carry out a command: what was asked for, what the backend can do, what the environment says."""

import os
from typing import Any

from clm_core.backend import Backend, World
from clm_core.errors import OptionError
from clm_core.launch import mailbox


def launcher_of(backend: Backend, config: Any, for_launcher: tuple[str, ...]) -> list[str] | None:
    """The command that starts the processes; None if this process does it all, or is one of them.

    Raises:
        OptionError: the backend uses one device only, or there is no launcher for the arguments.
    """
    asked = config.nproc_per_node
    if asked not in (None, "1") and backend.parallel is None:
        raise OptionError(f"nproc_per_node {asked}: {_uses_one(backend)}: leave it out")
    found = backend.launcher(asked, for_launcher) if asked and backend.parallel else None
    if for_launcher and found is None:
        why = "without --nproc-per-node, no processes are started" if asked is None else "it starts no processes"
        raise OptionError(f"-- {' '.join(for_launcher)}: for the launcher of backend {backend.name}, but {why}")
    return found


def world_of(backend: Backend, config: Any) -> World:
    """The devices of this process, and of those that do the same.

    Raises:
        OptionError: several processes were started, and the backend uses one device only, or they have no folder.
    """
    world = backend.world(config.nproc_per_node)
    if world.size > 1 and backend.parallel is None:
        raise OptionError(f"{world.size} processes were started, but {_uses_one(backend)}")
    if not world.is_one_process and getattr(config, "output_dir", "") is None:
        raise OptionError(
            f"{world.size // world.local} processes were started: give --output-dir, a folder that all of them see"
        )
    return world


def unused(backend: Backend, config: Any) -> str | None:
    """The line that says that there are more devices than the training uses, if nobody has said how many to use."""
    if config.nproc_per_node is not None or backend.parallel is None or backend.world(None).size > 1:
        return None
    count = backend.accelerators()
    return f"{count} GPUs are here, and one is used: --nproc-per-node gpu trains on all of them" if count > 1 else None


def awaited(world: World) -> str | None:
    """The line that says whom this process waits for, if somebody else has started it as one of several.

    The first one on each machine says it.
    """
    count = world.size // world.local
    if count == 1 or mailbox.folder() is not None or os.environ.get("LOCAL_RANK", "0") != "0":
        return None
    return (
        f"process {world.rank // world.local} of {count}, as the environment says (RANK and WORLD_SIZE, or TF_CONFIG): "
        "waiting until all have come"
    )


def check_alone(backend: Backend, command: str) -> None:
    """Make sure that a command that uses one device was started once.

    Raises:
        OptionError: it was started as several processes.
    """
    if (size := backend.world(None).size) > 1:
        raise OptionError(f"{size} processes were started, but {command} uses one device: start it once")


def _uses_one(backend: Backend) -> str:
    return f"backend {backend.name} uses one device only{f' ({why})' if (why := backend.why_one_device) else ''}"
