"""A time limit for code that may hang anywhere, in a process that does not answer or in a blocked read."""

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

from lbmux.errors import LabError

AGAIN_S = 10.0
"""After the limit, clean-up code gets this long before it is interrupted too."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise LabError inside the block after ``seconds``.  It works in the main thread only, since it uses SIGALRM."""

    def late(number: int, frame: object) -> NoReturn:
        raise LabError("", f"not done within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
