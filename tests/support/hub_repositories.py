"""What the Hub of the tests keeps: repositories, whose commits have all their files, in memory."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

LARGE = (".safetensors", ".bin", ".ends", ".pt", ".pth", ".png")
"""The ends of names that are stored by their hash, as .gitattributes says on the real one."""


@dataclass
class Repo:
    """A repository: every commit has all files, each with its content."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        self.messages.append(message)
        return oid


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file as the Hub lists it."""
    large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{large['oid']}\nsize {len(content)}\n".encode()
    stored = pointer if path.endswith(LARGE) else content
    oid = hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()
    found = {"type": "file", "path": path, "size": len(content), "oid": oid}
    return {**found, "lfs": large} if path.endswith(LARGE) else found
