"""A progress bar for commands that read a capture."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbmux.tools.replay.looped_capture import LoopedCapture

REPORT_EVERY_BYTES = 1 << 22
"""Progress is reported after this much of the capture."""


@contextlib.contextmanager
def progress(looped: "LoopedCapture") -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar if standard error is a terminal; yield the function that updates it, or None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, shown = bar.add_task("", total=looped.size_bytes), 0

        def update(offset: int) -> None:
            nonlocal shown
            if offset - shown >= REPORT_EVERY_BYTES:
                shown = offset
                bar.update(task, completed=offset)

        yield update
