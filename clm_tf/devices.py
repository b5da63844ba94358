"""The devices for either Keras: one, a machine's, or those of several processes; TensorFlow is imported if needed."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from clm_core.backend import ALONE, World
from clm_core.counts import with_noun
from clm_core.errors import OptionError
from clm_core.stopping import Stop
from clm_tf.meeting import Meeting

if TYPE_CHECKING:
    import tensorflow as tf

VARIABLE = "TF_CONFIG"
"""Where whoever starts several processes describes them to TensorFlow."""

TRAINING = ("chief", "worker")
"""The tasks of TF_CONFIG that train, in the order of their ranks."""

TELLING = 20.0
"""Seconds for which a worker that an error ends tries to tell those that have not begun yet."""

_meetings: dict[str, Meeting] = {}
"""Those of this process, by the configuration that names the workers: they wait for each other once."""


def find_world(nproc_per_node: str | None) -> World:
    """The devices on each machine, a number or `gpu`, and the processes that TF_CONFIG names.

    Raises:
        OptionError: there are fewer devices, or TF_CONFIG says something else than which workers train.
    """
    processes, number = _place(os.environ.get(VARIABLE))
    local = 1 if nproc_per_node in (None, "1") else _local(str(nproc_per_node), processes)
    return World(rank=number * local, size=processes * local, local=local) if processes * local > 1 else ALONE


def come() -> None:
    """Let the other workers reach this one, if there are any.

    Raises:
        OptionError: it cannot listen at its address.
    """
    if meeting := _meeting():
        meeting.open()


def leave(*, patient: bool) -> None:
    """Tell the other workers that this one ends, unless all had come before."""
    if meeting := _meeting():
        meeting.tell(TELLING if patient else 0.0)


def accelerators() -> int:
    """How many GPUs TensorFlow sees."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def device_name() -> str | None:
    """What its maker calls the first GPU that TensorFlow uses; None if it uses none."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    found: str | None = tf.config.experimental.get_device_details(gpus[0]).get("device_name") if gpus else None
    return found


def peak_of_accelerator() -> int | None:
    """The most of its memory that tensors of this process have had at once, in bytes; None where there is no GPU."""
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    return max(int(tf.config.experimental.get_memory_info(gpu.name)["peak"]) for gpu in gpus) if gpus else None


def grow_memory() -> None:
    """Have TensorFlow take a GPU's memory as it needs it, once it starts, unless the environment says otherwise.

    Otherwise it takes all of it, and neither another process nor what is measured gets any.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def strategy_of(world: World, stop: Stop | None = None) -> tf.distribute.Strategy:
    """TensorFlow's strategy for these devices; for one, the current one, which is usually none.

    Where there are other workers, it waits for them, unless `stop` hears of a signal.

    Raises:
        Interrupted: a signal asked for the end of what has not begun.
        LostProcessError: another worker has ended before all had come.
        OptionError: TensorFlow has been used in this process, with fewer devices.
    """
    import tensorflow as tf

    if world.size == 1:
        return tf.distribute.get_strategy()
    gpus = tf.config.list_physical_devices("GPU")
    if world.is_one_process:
        return _mirrored("GPU" if gpus else _split_processor(world.local), world.local)
    if gpus:
        tf.config.set_visible_devices(gpus[: world.local], "GPU")
    if meeting := _meeting():  # TensorFlow, which knows the workers from then on, has the port for itself.
        meeting.wait(stop or Stop())
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    _take_back(signal.SIGTERM)
    return strategy


@functools.cache  # A second one would count its exchanges from the start, and take answers to the first one's.
def _mirrored(kind: str, count: int) -> tf.distribute.Strategy:
    import tensorflow as tf

    return tf.distribute.MirroredStrategy([f"{kind}:{number}" for number in range(count)])


def _meeting() -> Meeting | None:
    """That of the workers which the environment names; None if there is one process."""
    config = os.environ.get(VARIABLE)
    processes, number = _place(config)
    if not config or processes == 1:
        return None
    cluster = json.loads(config)["cluster"]
    addresses = [address for name in TRAINING for address in cluster.get(name, ())]
    return _meetings.setdefault(config, Meeting(addresses, number))


def _take_back(number: int) -> None:
    """Have a signal do again what it does in Python: TensorFlow's service for workers answers SIGTERM itself."""
    usual = signal.getsignal(number)
    if usual is not None and threading.current_thread() is threading.main_thread():
        signal.signal(number, usual)


def _place(config: str | None) -> tuple[int, int]:
    """How many processes train, and the number of this one."""
    if not config:
        return 1, 0
    try:
        found: dict[str, Any] = json.loads(config)
        cluster, task = dict(found["cluster"]), found["task"]
        kind, index = str(task["type"]), int(task["index"])
        sizes = {name: len(cluster.get(name, ())) for name in TRAINING}
    except (KeyError, TypeError, ValueError) as error:
        raise OptionError(
            f"{VARIABLE} is set and does not say which of which workers this is ({error!r}): unset it, or set it like "
            '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
        ) from error
    if others := sorted({*cluster, kind} - {*TRAINING}):
        raise OptionError(f"{VARIABLE} has {others[0]} tasks, but clm trains with workers only: leave {others[0]} out")
    if index not in range(sizes[kind]):
        raise OptionError(f"{VARIABLE} has no {kind} {index}: there are {sizes[kind]}")
    return sum(sizes.values()), index + (sizes["chief"] if kind == "worker" else 0)


def _local(asked: str, processes: int) -> int:
    gpus = accelerators()
    if asked == "gpu" and not gpus:
        raise OptionError("nproc_per_node gpu: TensorFlow sees no GPU: give a number, to use as many parts of the CPU")
    if asked == "gpu":
        return gpus
    if gpus and int(asked) > gpus:
        raise OptionError(f"nproc_per_node {asked}: TensorFlow sees {with_noun(gpus, 'GPU')}: give no more than it")
    if not gpus and processes > 1:
        raise OptionError(f"nproc_per_node {asked}: a process of {VARIABLE} has one device on a CPU: leave it out")
    return int(asked)


def _split_processor(count: int) -> str:
    import tensorflow as tf

    processor = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:  # TensorFlow has been used.
        if (there := len(tf.config.list_logical_devices("CPU"))) < count:
            raise OptionError(
                f"nproc_per_node {count}: TensorFlow has been used in this process with "
                f"{with_noun(there, 'CPU device')}, and cannot get others: do this first, or in a process of its own"
            ) from error
    return "CPU"
