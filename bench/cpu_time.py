"""CPU time of the core that generates, forwards and sinks: unlike wall-clock time, it is steady on a busy machine."""

import contextlib
from pathlib import Path

from bench.live import GENERATOR_CORE


def _soft_interrupts() -> Path:
    """Return the /proc directory of the generator core's ksoftirqd."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text().strip() == f"ksoftirqd/{GENERATOR_CORE}":
                return comm.parent
    raise LookupError(f"no ksoftirqd/{GENERATOR_CORE}")


class CpuTime:
    """Nanoseconds that the calling thread and the soft interrupts of its core have used, from schedstat."""

    def __init__(self) -> None:
        self._threads = (Path("/proc/thread-self"), _soft_interrupts())

    def ns(self) -> int:
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in self._threads)
