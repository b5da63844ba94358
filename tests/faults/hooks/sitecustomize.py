"""Does in Python what inject.c does, where there is no compiler: by audit events, so without single writes."""

import errno
import itertools
import os
import signal
import sys
from pathlib import Path

CREATES, OPENS, REMOVES, SYNCS, CHANGES = "creates", "opens", "removes", "syncs", "changes"
EVENTS = {
    "os.rename": (1, CREATES),
    "os.mkdir": (0, CREATES),
    "os.link": (1, CREATES),
    "os.symlink": (1, CREATES),
    "os.remove": (0, REMOVES),
    "os.rmdir": (0, REMOVES),
    "os.truncate": (0, CHANGES),
    "os.chmod": (0, CHANGES),
}
"""Of each event, which argument is the path, and what the operation does."""

IMPOSSIBLE = {
    errno.ENOSPC: (OPENS, REMOVES, CHANGES),
    errno.EDQUOT: (OPENS, REMOVES, CHANGES),
    errno.EACCES: (SYNCS, CHANGES),
    errno.EPERM: (SYNCS, CHANGES),
    errno.EROFS: (SYNCS, CHANGES),
}


def arm():
    """Count from now on, as the environment says."""
    global _given, _under, _count
    _given = {name: value for name, value in os.environ.items() if name.startswith("FAULT_")}
    _under = tuple(filter(None, _given.get("FAULT_UNDER", "").split(":")))
    _count = itertools.count()


def _operation(name, effect, path):
    if effect is REMOVES and not os.path.lexists(path):
        return
    if not any(path == folder or path.startswith(folder + os.sep) for folder in _under):
        return
    index, at, number = next(_count), int(_given.get("FAULT_AT", -1)), int(_given.get("FAULT_NUMBER", 0))
    log = os.open(_given["FAULT_LOG"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.write(log, f"{index} {name} {path}\n".encode())
    os.close(log)
    if at < 0 or index < at or (index > at and _given.get("FAULT_ALWAYS") != "1"):
        return
    match _given.get("FAULT_KIND"):
        case "kill" | "half":
            os.kill(os.getpid(), signal.SIGKILL)
        case "signal":
            os.kill(os.getpid(), number)
        case "error" if effect not in IMPOSSIBLE.get(number, ()):
            raise OSError(number, os.strerror(number), path)


def _hook(event, arguments):
    if not _under:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | bytes) and (flags or 0) & (os.O_CREAT | os.O_WRONLY | os.O_RDWR | os.O_TRUNC):
            name, effect = ("create", CREATES) if flags & os.O_CREAT else ("open", OPENS)
            _operation(name, effect, os.path.abspath(os.fsdecode(path)))  # noqa: PTH100
    elif event in EVENTS:
        position, effect = EVENTS[event]
        path = arguments[position]
        if isinstance(path, str | bytes):
            _operation(event.removeprefix("os."), effect, os.path.abspath(os.fsdecode(path)))  # noqa: PTH100


def _syncing(real):
    def fsync(descriptor):
        if _under and (link := Path(f"/proc/self/fd/{descriptor}")).is_symlink():
            _operation("fsync", SYNCS, str(link.readlink()))
        return real(descriptor)

    return fsync


arm()
os.fsync = _syncing(os.fsync)
sys.addaudithook(_hook)
