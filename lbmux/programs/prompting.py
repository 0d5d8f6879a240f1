"""Clients of a backend that dies hear of it at once: each is made to speak, and what it says is answered with a reset.

A reset has to have the client's own numbers (RFC 5961, section 3), which a mux does not know.  A segment outside of its
window makes a client that is in the middle of a connection acknowledge what it has (RFC 9293, section 3.10.7.4, first),
with its numbers.  From there on all is as with any packet of a flow that has lost its backend: hosts are asked whether
it is theirs, and where none has it the mux resets it (lbmux.slowpath.returned).  The flow may have another mux by now,
or another backend: then its client's acknowledgment goes there, and nothing comes of it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from lbmux.addresses import Address, from_pair, port_from_wire
from lbmux.control.config import Service
from lbmux.control.moment import Moment
from lbmux.datapath.tables import CLOSING, GONE, TICK_SHIFT
from lbmux.slowpath.checksums import TCP
from lbmux.slowpath.flow import Flow
from lbmux.slowpath.mux import BY_ROUTE, Sent
from lbmux.slowpath.resets import outside_of_window
from lbmux.targets.regions import now_ticks

log = logging.getLogger(__name__)

CHUNK_PLACES = 1 << 15
SHARE = 0.5
"""Of the slow path's packets in a second that may come of this, if every host is asked."""
PAUSE_S = 0.01
Rows = Mapping[int, tuple[int, Service]]
"""Of backends whose clients are to hear of their death: by row, its generation and whose it is."""


class Prompting:
    """Follows a mux's tables from one configuration in force to the next.  ``send``: as the slow path's sender does."""

    def __init__(self, moment: Callable[[], Moment], send: Callable[[Iterable[Sent]], object]) -> None:
        self._moment, self._send = moment, send
        self._rows = rows_of(moment())
        self._tasks: set[asyncio.Task[None]] = set()

    def in_force(self, packets_per_s: int, hosts_asked: int) -> None:
        """Another configuration is; ``hosts_asked``: in vain, for each connection that nobody has, at most."""
        before, self._rows = self._rows, rows_of(self._moment())
        backends = self._moment().tables.backends
        lost = {
            row: (generation, service)
            for row, (generation, service) in before.items()
            if backends["state"][row] == GONE or backends["generation"][row] != generation
        }
        if lost:
            a_second = max(1.0, SHARE * packets_per_s / max(1, min(hosts_asked, len(before))))
            task = asyncio.create_task(self._prompt(lost, a_second))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _prompt(self, lost: Rows, a_second: float) -> None:
        moment = self._moment()
        flows = await asyncio.to_thread(lambda: list(orphans(moment, lost)))
        at_once = max(1, round(a_second * PAUSE_S))
        for first in range(0, len(flows), at_once):
            segments = (outside_of_window(flow) for flow in flows[first : first + at_once])
            self._send([Sent(BY_ROUTE, segment) for segment in segments])
            await asyncio.sleep(at_once / a_second)
        if flows:
            log.info("%d clients of backends that are gone were made to speak", len(flows))


def rows_of(moment: Moment) -> Rows:
    """Of TCP services that end the connections of a backend that dies."""
    generations = moment.tables.backends["generation"]
    return {
        row: (int(generations[row]), service)
        for row, service, _ in moment.backends()
        if service.protocol == "tcp" and service.on_down == "reset"
    }


def orphans(moment: Moment, lost: Rows) -> Iterator[Flow]:
    """The flows whose backend was one of those, and which were not about to end; of all workers, each once."""
    generations = np.full(len(moment.tables.backends), -1, np.int64)
    limits = np.zeros(len(moment.tables.backends), np.int64)
    for row, (generation, service) in lost.items():
        generations[row], limits[row] = generation, round(service.idle.trusted_s * 1e9) >> TICK_SHIFT
    now, seen = np.uint32(now_ticks()), set[Flow]()
    for part in moment.tables.flows:
        places = part.reshape(-1)
        for first in range(0, len(places), CHUNK_PLACES):
            chunk = places[first : first + CHUNK_PLACES].copy()
            targets = chunk["target"] % len(generations)
            idle = (now - chunk["seen"]).view(np.int32)
            meant = (generations[targets] == chunk["generation"]) & (idle <= limits[targets])
            meant &= (chunk["state"] != 0) & (chunk["state"] != CLOSING)
            for entry in chunk[meant]:
                flow = _flow(lost[int(entry["target"])][1], entry)
                if flow not in seen:
                    seen.add(flow)
                    yield flow


def _flow(service: Service, entry: np.void) -> Flow:
    ports = int(entry["ports"])
    client: Address = from_pair(int(entry["high"]), int(entry["low"]))
    return Flow(TCP, client, port_from_wire(ports & 0xFFFF), service.vip, port_from_wire(ports >> 16))
