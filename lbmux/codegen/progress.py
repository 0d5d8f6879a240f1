"""Log messages about compilation, so that the first start is not silent for half a minute.

The function cache and the kernel program compiler report each compilation here. Only programs that called `announce`
log anything. This module does not import Numba.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from lbmux.plurals import counted

log = logging.getLogger(__name__)
SAY_AFTER_S, SAY_EVERY_S, IDLE_S = 1.0, 5.0, 2.0
"""Log after the first second, then every five seconds. Compilation counts as finished after two idle seconds."""
LONGEST_S = 600.0
"""A compilation that failed never reports its end. It is dropped after this long."""


@dataclass
class Progress:
    """The compilations in progress and the messages about them. Pure code: the caller passes the time, in seconds."""

    under_way: dict[str, float] = field(default_factory=dict)
    done: int = 0
    first: float = 0.0
    last: float = 0.0
    last_message: float | None = None

    def begin(self, name: str, now: float) -> None:
        if not self.under_way and now - self.last > IDLE_S:
            self.done, self.first, self.last_message = 0, now, None
        self.under_way[name] = self.last = now

    def end(self, name: str, now: float) -> None:
        if self.under_way.pop(name, None) is not None:
            self.done, self.last = self.done + 1, now

    def line(self, now: float) -> str | None:
        """Return the message that is due now, or None."""
        self.under_way = {name: at for name, at in self.under_way.items() if now - at < LONGEST_S}
        took = now - self.first
        if self.under_way:
            if took < SAY_AFTER_S or (self.last_message is not None and now - self.last_message < SAY_EVERY_S):
                return None
            begins, self.last_message = self.last_message is None, now
            what = "compiling (once per version and machine)" if begins else "still compiling"
            done = counted(self.done, "function")
            return f"{what}: {', '.join(self.under_way)} ({done} done, {took:.0f} s)"
        if self.last_message is not None and self.is_over(now):
            self.last_message = None
            took = self.last - self.first
            return f"compiled {counted(self.done, 'function')} in {took:.0f} s; later starts use the cache"
        return None

    def is_over(self, now: float) -> bool:
        return not self.under_way and now - self.last >= IDLE_S


_progress, _lock = Progress(), threading.Lock()
_announced = False
_reporter: threading.Thread | None = None


def announce() -> None:
    """Log compilations from now on."""
    global _announced
    _announced = True


def begin(name: str) -> None:
    global _reporter
    if not _announced:
        return
    with _lock:
        _progress.begin(name, time.monotonic())
        if _reporter is None:
            _reporter = threading.Thread(target=_report, name="compiling", daemon=True)
            _reporter.start()


def end(name: str) -> None:
    with _lock:
        _progress.end(name, time.monotonic())


@contextlib.contextmanager
def compiling(name: str) -> Iterator[None]:
    begin(name)
    try:
        yield
    finally:
        end(name)


def _report() -> None:
    """Log progress from a thread until compilation has finished."""
    global _reporter
    while True:
        time.sleep(min(0.2, SAY_AFTER_S))
        with _lock:
            now = time.monotonic()
            line = _progress.line(now)
            over = _progress.is_over(now)
            if over:
                _reporter = None
        if line:
            log.info("%s", line)
        if over:
            return
