"""A bound in time for what may hang anywhere: in a process that does not answer, in a read that never ends."""

import contextlib
import signal
from collections.abc import Iterator
from typing import NoReturn

from lbmux.errors import LabError

AGAIN_S = 10.0
"""What puts things right when it is too late has so long, each time."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """LabError in the middle of what is done, after so long; of the main thread only, as signals are."""

    def late(number: int, frame: object) -> NoReturn:
        raise LabError("", f"not done within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
