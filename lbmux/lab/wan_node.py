"""The lab's wide-area network: a node that delays or loses the frames between its interfaces.

The kernel may lack netem, so the node reads and sends whole frames (AF_PACKET). Delays count from the kernel's arrival
timestamp, so the node's own delay in reading a frame does not add to them. Frames that it sends late are counted.
"""

import contextlib
import ctypes
import gc
import os
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lbmux.errors import SetupError
from lbmux.frames.batch import Batch
from lbmux.frames.delay_lines import COUNTERS, DelayLines, Path
from lbmux.frames.packet_ring import PacketRing

PR_SET_TIMERSLACK = 29
LONGEST_WAIT_S = 0.5
PRIORITY = 1
"""The priority in real-time scheduling (SCHED_RR): a frame that is due leaves before other programs of the lab run."""

PAUSE_S = 50e-6
"""A pause after each turn, which adds half of it to a delay.  A node that never rests takes a CPU for itself, and the
kernel then stops real-time programs for 50 ms a second (sched(7), "Limiting the CPU usage").
"""


class WanNode:
    """``interfaces`` by site; ``paths`` by (from, to). Raise SetupError if an interface cannot be opened."""

    def __init__(
        self, interfaces: Mapping[str, str], paths: Mapping[tuple[str, str], Path], queue: int = 8192, seed: int = 1
    ) -> None:
        self.sites = [*interfaces]
        number = {site: at for at, site in enumerate(self.sites)}
        if unknown := {site for ends in paths for site in ends} - number.keys():
            raise SetupError(f"site {sorted(unknown)[0]}", "has no interface", "give it with --site NAME=INTERFACE")
        self._rings = [PacketRing(interface) for interface in interfaces.values()]
        numbered = {(number[source], number[target]): path for (source, target), path in paths.items()}
        self.lines = DelayLines([ring.index for ring in self._rings], numbered, queue, seed)
        self._batch = Batch()
        self._stopped = False
        self._warm_up()

    def _warm_up(self) -> None:
        """Compile everything, or load it from the cache, before the first frame is due."""
        self.lines.enter(self._batch, self._rings[0].arrival_ns, 0)
        self._rings[0].send(self._batch)
        self._take()
        self._give()
        self.lines.next_due()

    def stop(self) -> None:
        """Make ``run`` return."""
        self._stopped = True

    def run(self) -> None:
        """Forward frames until ``stop``."""
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
        gc.disable()
        while not self._stopped:
            self._take()
            self._give()
            time.sleep(PAUSE_S)
            wait_ns = self.lines.next_due() - time.time_ns()
            if wait_ns > 0:
                select.select(self._rings, [], [], min(wait_ns / 1e9, LONGEST_WAIT_S))

    def close(self) -> None:
        for ring in self._rings:
            ring.close()

    def _take(self) -> None:
        for site, ring in enumerate(self._rings):
            if ring.receive(self._batch):
                self.lines.enter(self._batch, ring.arrival_ns, site)
            ring.release(self._batch)

    def _give(self) -> None:
        while self.lines.leave(self._batch, time.time_ns()):
            self._rings[0].send(self._batch)

    def report(self) -> dict[str, Any]:
        """Return counters by direction, and the errors of the times at which frames left."""
        sites = self.sites
        by_direction = {
            f"{source}>{target}": dict(zip(COUNTERS, counters, strict=True))
            for at, counters in enumerate(self.lines.counters.tolist())
            if any(counters) and (source := sites[at // len(sites)]) and (target := sites[at % len(sites)])
        }
        dropped = sum(ring.dropped() for ring in self._rings)
        errors = {f"p{round(100 * share)}_ms": self.lines.error_ns(share) / 1e6 for share in (0.5, 0.99)}
        return {"paths": by_direction, "unread": dropped, "error": errors}


def both_ways(paths: Mapping[tuple[str, str], Path]) -> dict[tuple[str, str], Path]:
    """Add the reverse of each path that has none, with the same values."""
    return {(target, source): path for (source, target), path in paths.items()} | dict(paths)


def parse_path(text: str) -> tuple[tuple[str, str], Path]:
    """Parse `FROM>TO:DELAY[,JITTER[,LOSS]]`, with times in ms and the loss as a share; raise ValueError."""
    ends, _, numbers = text.partition(":")
    source, _, target = ends.partition(">")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    if not source or not target or source == target or not 1 <= len(values) <= 3:
        raise ValueError(f"{text!r} is not FROM>TO:DELAY[,JITTER[,LOSS]]")
    path = Path(*values)
    if not (0 <= path.jitter_ms <= path.delay_ms <= 10_000 and 0 <= path.loss <= 1):
        raise ValueError(f"{text!r}: delay up to 10,000 ms, jitter up to the delay, loss from 0 to 1")
    return (source, target), path


def parse_sites(texts: Sequence[str]) -> dict[str, str]:
    """Parse `NAME=INTERFACE` of each site; raise ValueError."""
    sites = {}
    for text in texts:
        name, _, interface = text.partition("=")
        if not name or not interface or name in sites:
            raise ValueError(f"{text!r} is not NAME=INTERFACE, with each name once")
        sites[name] = interface
    return sites
