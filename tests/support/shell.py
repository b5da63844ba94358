"""A command that is printed, as a shell reads it."""

import subprocess


def words(command):
    """The words of a command, as bash would give them to a program."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]
