"""What a person is told, kept as a list of lines."""

from clm_core.screen.progress import Progress


class Heard(Progress):
    """Keeps the lines in place of showing them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
