"""How much memory this process has had in use, where the system tells."""

import sys
from pathlib import Path


def peak_memory() -> int | None:
    """The most memory that the process has had at once, in bytes; None on a system that does not tell."""
    if sys.platform == "linux":  # Where `getrusage` counts what the process had before it became this program.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
