"""Faults of the disk, kills and signals, at the i-th file operation of a process: how a process is told of them."""

import ctypes
import errno
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

HERE = Path(__file__).parent
ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EACCES")


@dataclass(frozen=True)
class Fault:
    """What happens at an operation; see inject.c."""

    kind: str = "none"
    at: int = -1
    number: int = 0
    always: bool = False
    event: str = ""
    """`StepDone 3` in place of an operation: a signal once the training has reported its third step."""

    def __str__(self) -> str:
        number = f" {errno.errorcode[self.number]}" if self.kind == "error" else f" {self.number}" * bool(self.number)
        return f"{self.kind}{number} at {self.event or self.at}{' and from then on' * self.always}"

    def environment(self, under: Path, log: Path) -> dict[str, str]:
        """What arms a process: what it changes under a folder is counted, and noted in a file."""
        return {
            "FAULT_UNDER": str(under.resolve()),
            "FAULT_LOG": str(log.resolve()),
            "FAULT_KIND": self.kind,
            "FAULT_AT": str(self.at),
            "FAULT_NUMBER": str(self.number),
            "FAULT_ALWAYS": str(int(self.always)),
            "FAULT_EVENT": self.event,
        }


NOTHING = Fault()
NOT_BY_A_FULL_DISK = re.compile("open|unlink|rmdir|remove|f?chmod")
NOT_BY_A_PERMISSION = re.compile("fsync|fdatasync|f?chmod|f?truncate|.*write|sendfile|copy_file_range")


def can_fail(operation: str, number: int) -> bool:
    """Whether an operation can fail in this way; inject.c knows the same."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return not NOT_BY_A_FULL_DISK.match(operation)
    return number != errno.EACCES or not NOT_BY_A_PERMISSION.match(operation)


@cache
def library() -> Path | None:
    """The library, built once; None where there is no compiler, or a system that loads no library before others."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    built = Path(mkdtemp(prefix="clm-faults-")) / "inject.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", built, HERE / "inject.c", "-ldl"], check=True)
    return built


def loading() -> dict[str, str]:
    """The environment of a process that is to be armed: with the library, or with the hooks in its place."""
    if built := library():
        return {"LD_PRELOAD": str(built)}
    return {"PYTHONPATH": os.pathsep.join([str(HERE / "hooks"), os.environ.get("PYTHONPATH", "")])}


def arm() -> None:
    """Arm this process, by its environment, as one that starts is."""
    if preloaded := os.environ.get("LD_PRELOAD"):
        ctypes.CDLL(preloaded).fault_arm()
    else:
        from sitecustomize import arm

        arm()
