"""What is in a folder that a command has written."""

import json

from clm_core.record import MEASURED


def names(folder):
    """Of the files and folders in it, but for locks, stamps and the cache of a test."""
    return sorted(path.name for path in folder.iterdir() if path.name not in (".locks", ".stamps", "cache"))


def history(folder):
    """The lines of a run's history, without how fast it was."""
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in MEASURED} for line in lines]
