"""Write to a terminal only the lines that changed, since a whole screen is slow over ssh."""

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.control import Control
from rich.segment import ControlType


class TerminalWriter:
    """Writes the whole screen of a console that is in `Console.screen`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._size: ConsoleDimensions | None = None
        self._shown: list[str] = []

    def write(self, render: RenderableType) -> None:
        """Show ``render`` on the terminal. Only the lines that differ from those shown are written."""
        size = self._console.size
        if size != self._size:  # a resized terminal may move lines
            self._size, self._shown = size, []
            self._console.control(Control((ControlType.CLEAR,)))
        with self._console.capture() as captured:
            self._console.print(render)
        lines = captured.get().splitlines()[: size.height]
        lines += [""] * (len(self._shown) - len(lines))
        previous = self._shown + [""] * (len(lines) - len(self._shown))
        for number, (before, line) in enumerate(zip(previous, lines, strict=True)):
            if before != line:
                # Clear first: after a full-width line, the cursor is still on its last character.
                self._console.file.write(f"\x1b[{number + 1};1H\x1b[K{line}")
        self._console.file.flush()
        self._shown = lines
