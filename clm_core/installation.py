"""The `pip install` line that works here: it names where clm was installed from.

A third-party distribution on the index also ships a package `clm_core`, which overwrites this one's files.
"""

import json
import re
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from clm_core.redaction import without_secrets

DISTRIBUTION, PACKAGE = "clm", "clm_core"
OURS = re.compile(r'pip install "clm\[([\w,-]+)\]"')
"""How a backend names an extra of clm."""

FROM_A_CLONE = 'from a clone of the repository: pip install ".[{extra}]"'


def install_line(command: str) -> str:
    """A backend's own command; where that is an extra of clm, the one that installs it from where clm came from."""
    found = OURS.fullmatch(command)
    return install_extra(found[1]) if found else command


def install_extra(extra: str) -> str:
    """The command that installs an extra of clm, or where to run one."""
    distribution = metadata.distribution(DISTRIBUTION)
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    address = _address(origin, extra) or _repository(distribution, extra)
    return f"pip install {address}" if address else FROM_A_CLONE.format(extra=extra)


def strangers() -> list[str]:
    """Other distributions here that ship a package of the name `clm_core`, with their versions."""
    return sorted(
        f"{found.name} {found.version}"
        for found in metadata.distributions()
        if found.name and found.name.lower() != DISTRIBUTION and _ships(found)
    )


def warning(found: list[str]) -> str:
    """What to do about them; overwritten files have to be reinstalled."""
    names = " ".join(stranger.split()[0] for stranger in found)
    return (
        f"{', '.join(found)} also ships a package {PACKAGE}, which may have replaced files of clm: "
        f"pip uninstall {names}, then install clm again with --force-reinstall"
    )


def _address(origin: dict[str, Any], extra: str) -> str | None:
    """What pip has recorded of a folder, a repository or an archive, as a requirement; None if that is gone."""
    url = str(origin.get("url", ""))
    local = Path(url2pathname(urlparse(url).path)) if url.startswith("file:") else None
    if "dir_info" in origin:
        if local is None or not (local / "pyproject.toml").is_file():
            return None
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"{editable}{_quoted(f'{local}[{extra}]')}"
    if local is not None and not local.exists():
        return None
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    if not url or without_secrets(url) != url:
        return None
    folder = f"#subdirectory={origin['subdirectory']}" if "subdirectory" in origin else ""
    return _quoted(f"{DISTRIBUTION}[{extra}] @ {url}{folder}")


def _repository(distribution: metadata.Distribution, extra: str) -> str | None:
    for entry in distribution.metadata.get_all("Project-URL") or ():
        label, _, url = entry.partition(",")
        if label.strip().lower() == "repository":
            return _quoted(f"{DISTRIBUTION}[{extra}] @ git+{url.strip()}")
    return None


def _quoted(requirement: str) -> str:
    return f'"{requirement}"' if re.fullmatch(r"[^\"'$`\\!]*", requirement) else shlex.quote(requirement)


def _ships(found: metadata.Distribution) -> bool:
    files = found.read_text("RECORD") or ""
    named = PACKAGE in (found.read_text("top_level.txt") or "").split()
    return named or files.startswith(f"{PACKAGE}/") or f"\n{PACKAGE}/" in files
