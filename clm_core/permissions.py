"""Who may read what a run writes: whoever may read a file that is written plainly."""

import tempfile
from pathlib import Path
from stat import S_IMODE


def share(folder: Path) -> None:
    """Give the files of a folder the permissions that the user's umask gives a new file.

    Some libraries write for the owner alone, safetensors among them.
    """
    mode = _mode_of_a_new_file(folder)
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink() and S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def _mode_of_a_new_file(folder: Path) -> int:
    """Read off a file: the umask itself cannot be read without setting it, which other threads would notice."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        file = Path(temporary) / "new"
        file.touch()
        return S_IMODE(file.stat().st_mode)
