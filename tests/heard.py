"""Progress that only remembers what was said."""

from aurora_m.workspace import Progress


class Heard(Progress):
    """`lines` are all that was said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)
