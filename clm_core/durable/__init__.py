"""Durable files: whole or not at all, on the disk, with sums that prove it, and a lock for one writer at a time."""

from clm_core.durable.files import (
    append,
    copy,
    discard,
    read,
    remove,
    replace,
    share,
    sync,
    sync_file,
    sync_folder,
    sync_names,
    write,
)

__all__ = [
    "append",
    "copy",
    "discard",
    "read",
    "remove",
    "replace",
    "share",
    "sync",
    "sync_file",
    "sync_folder",
    "sync_names",
    "write",
]
