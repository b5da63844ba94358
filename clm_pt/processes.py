"""The processes that work together: they meet, make sure that they do the same, add up their numbers, and part."""

import itertools
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from clm_core.backend import EvaluationJob, TrainingJob, World, check_same
from clm_core.counts import with_noun
from clm_core.errors import ClmError, Interrupted, LostProcessError, OptionError
from clm_pt.workers import STARTED_BY, is_worker

PATIENCE = timedelta(minutes=30)
"""How long a process waits for an answer of others; the start, and what one of them alone prepares, is not limited."""

GRACE = 15.0
"""Seconds that a process has to end, once the launcher that started it is gone."""

_LOST = re.compile(r"gloo.*(closed|reset|refused|pipe|timed? ?out)|ncclRemoteError", re.IGNORECASE | re.DOTALL)

_TWICE = "mark a variable ready only once"

_meetings = itertools.count()

Found = TypeVar("Found")


@contextmanager
def together(what: str) -> Iterator[None]:
    """Part at the end of the block, where processes have met in it.

    Raises:
        LostProcessError: another one of those that do `what` has ended.
        OptionError: DistributedDataParallel cannot train the model.
    """
    are_in_step = True
    try:
        yield
    except RuntimeError as error:
        are_in_step = False
        if _is_lost(error):
            raise LostProcessError(f"another of the processes that {what} ended") from error
        if _TWICE in str(error):  # As Reformer, whose backward pass repeats the forward pass layer by layer.
            raise OptionError(
                "DistributedDataParallel does not train this model, whose backward pass uses a weight more than once: "
                "train on one device, or with --pt-fsdp"
            ) from error
        raise
    except BaseException as error:
        are_in_step = isinstance(error, ClmError)
        raise
    finally:
        # Where they are not, the end of a group waits for what the others will not send any more.
        if dist.is_initialized() and (are_in_step or dist.get_world_size() == 1):
            dist.destroy_process_group()


def meet(job: TrainingJob | EvaluationJob) -> None:
    """Wait for all processes of a job, make sure that they do the same, and form the group that they exchange in.

    A group that there is already stays; in a process that is no worker, it has no other member.

    Raises:
        OptionError: one of them has other options or data than the first, or there is no GPU left for this one.
        Interrupted: a signal asked for the end of what has not begun.
    """
    if dist.is_initialized():
        return
    if is_worker():
        _end_with_launcher()
    world = job.world
    backend, store = _take_device(), _answering(job, lambda: _store(world))
    store.set(f"identity-{world.rank}", json.dumps(job.identity()))
    store.add("arrived", 1)
    _wait_until(job, lambda: store.add("arrived", 0) >= world.size)
    check_same([json.loads(store.get(f"identity-{rank}")) for rank in range(world.size)])
    form = partial(dist.init_process_group, backend, rank=world.rank, world_size=world.size, timeout=PATIENCE)
    _answering(job, lambda: form(store=PrefixStore("group", store)))


def gather(numbers: Sequence[float]) -> list[list[float]]:
    """The numbers of each process, in the order of their ranks, as float64; as many in each."""
    own = torch.tensor(numbers, dtype=torch.float64)
    if not dist.is_initialized():
        return [own.tolist()]
    found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(found, own)
    return [each.tolist() for each in found]


def wait_for_all() -> None:
    """Return when all processes are here."""
    gather([0.0])


def agree(job: TrainingJob | EvaluationJob) -> None:
    """Have all processes know what one of them was asked."""
    if job.stop.together:
        job.stop.agree(int(max(wish for (wish,) in gather([job.stop.wish]))))


def _is_lost(error: RuntimeError) -> bool:
    """Whether it says that another process does not answer any more."""
    kinds = [getattr(dist, name) for name in ("DistNetworkError", "DistStoreError") if hasattr(dist, name)]
    return isinstance(error, tuple(kinds)) or _LOST.search(str(error)) is not None


def _take_device() -> str:
    """Compute on this worker's own GPU, and return the backends of PyTorch by which it exchanges."""
    if not torch.accelerator.is_available():
        return "gloo"
    device, count = torch.accelerator.current_accelerator(), torch.accelerator.device_count()
    assert device is not None
    if (local := int(os.environ.get("LOCAL_RANK", "0"))) >= count:
        raise OptionError(
            f"LOCAL_RANK is {local}: PyTorch finds {with_noun(count, 'GPU')} here: start as many processes as GPUs"
        )
    torch.get_device_module(device).set_device(local)
    return f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"


def _store(world: World) -> Store:
    """Where processes leave words for each other, that of this meeting."""
    if world.size == 1:
        return HashStore()
    store, *_ = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun may keep the store, with the words of processes that it had started before; machines count differently.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT") if os.environ.get("GROUP_WORLD_SIZE") == "1" else None
    return PrefixStore(f"clm-{attempt}-{next(_meetings)}", store)


def _answering(job: TrainingJob | EvaluationJob, wait: Callable[[], Found]) -> Found:
    """What `wait` returns, once it does: it waits for others inside PyTorch, where Python hears of no signal."""
    found: Future[Found] = Future()

    def run() -> None:
        try:
            found.set_result(wait())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, name="clm-meeting", daemon=True).start()
    _wait_until(job, found.done)
    return found.result()


def _wait_until(job: TrainingJob | EvaluationJob, is_so: Callable[[], bool]) -> None:
    while not is_so():
        if job.stop.signum is not None:
            raise Interrupted(job.stop.signum)
        time.sleep(0.02)


def _end_with_launcher() -> None:
    """Have the end of the launcher, even by SIGKILL, end this process: as SIGTERM does, and then at once."""

    def watch() -> None:
        while os.getppid() == STARTED_BY:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(128 + signal.SIGTERM)

    if not any(thread.name == _WATCH for thread in threading.enumerate()):
        threading.Thread(target=watch, name=_WATCH, daemon=True).start()


_WATCH = "clm-launcher"
