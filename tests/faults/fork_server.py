"""Runs commands of clm, each in a process that is forked from this one, which has imported the framework.

`python fork_server.py BACKEND ...` reads a JSON array a line, the arguments of `_work` and those of `_waited`, and
answers each with an object: how the process ended, after how many seconds, and how many of them it computed.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import injection

IMPORTED = {
    "bigram": ["clm_bigram"],
    "pt": ["clm_pt.training", "clm_pt.scoring"],
    "tf": ["clm_tf.training"],
    "keras": ["clm_tf.keras3.training"],
}


def main(backends: list[str]) -> None:
    """Answer until nothing more is asked."""
    for backend in backends:
        for name in IMPORTED[backend]:
            import_module(name)
    print("ready", flush=True)
    for line in sys.stdin:
        work, wait = json.loads(line)
        started = time.monotonic()
        process = os.fork()
        if not process:
            _work(**work)
        code, cpu = _waited(process, **wait)
        if (learned := Path(f"{work['printed']}.modules")).exists():
            _import(learned.read_text().split())
            learned.unlink()
        print(json.dumps({"code": code, "seconds": time.monotonic() - started, "cpu": cpu}), flush=True)


def _import(names: list[str]) -> None:
    """What the first command has imported, the others find here."""
    for name in names:
        with suppress(Exception):  # Some names in sys.modules are no modules.
            import_module(name)
    gc.collect()
    gc.freeze()  # Or each process would look through all of it, and copy its pages.


def _waited(process: int, *, kill_after: float | None, patience: float) -> tuple[int | None, float]:
    """Its exit code, or minus the signal that ended it, None if it did not end in time; and its seconds of CPU."""
    alive = os.pidfd_open(process)
    if kill_after is not None and not select.select([alive], [], [], kill_after)[0]:
        os.kill(process, signal.SIGKILL)
    in_time = bool(select.select([alive], [], [], patience)[0])
    if not in_time:
        os.kill(process, signal.SIGKILL)
    os.close(alive)
    _, status, used = os.wait4(process, 0)
    return os.waitstatus_to_exitcode(status) if in_time else None, used.ru_utime + used.ru_stime


def _work(*, argv: list[str], folder: str, environment: dict[str, str], printed: str) -> None:
    """Become the command; this process never returns to the loop, and ends as any other."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{printed}.{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), descriptor)
    # A shell that starts the tests in the background has them ignore it, and all that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if environment.get("FAULT_EAGER"):
        import tensorflow

        tensorflow.config.run_functions_eagerly(True)  # Tracing takes as long as all the rest.
    if environment.get("FAULT_LEARN"):
        atexit.register(lambda: Path(f"{printed}.modules").write_text(" ".join(sys.modules)))
    _note_events()
    injection.arm()
    sys.argv = ["clm", *argv]
    runpy.run_module("clm_core", run_name="__main__", alter_sys=True)
    sys.exit()


def _note_events() -> None:
    """Note in the log what the training reports, and send itself the signal that is due at an event."""
    from clm_core.runs.history import Recorder

    handle, counts = Recorder.__call__, Counter()

    def noting(self, event) -> None:
        handle(self, event)
        name = type(event).__name__
        counts[name] += 1
        with open(os.environ["FAULT_LOG"], "a") as log:  # noqa: PTH123
            log.write(f"- {name} {counts[name]}\n")
        if os.environ.get("FAULT_EVENT") == f"{name} {counts[name]}":
            os.kill(os.getpid(), int(os.environ["FAULT_NUMBER"]))

    Recorder.__call__ = noting


if __name__ == "__main__":
    main(sys.argv[1:])
