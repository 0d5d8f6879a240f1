"""Challenge-ACK probes: reset the clients of a backend that died, without waiting for their next packet.

A reset must carry the client's sequence numbers (RFC 5961, section 3), which a mux does not know.  So the mux sends
each client a segment outside its window.  A client with an open connection answers with an ACK that carries its numbers
(RFC 9293, section 3.10.7.4, first).  The ACK is handled like any packet of a flow without a backend: second chance,
then a reset (lbmux.slowpath.second_chance).  If the flow has moved to another mux or backend, the ACK goes there and
has no effect.

If a service has no backend left, its clients are not probed until it has one again: there is no host to ask, and all
backends may come back.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from lbmux.config.models import Service
from lbmux.config.slowpath_models import SlowPath
from lbmux.plurals import counted
from lbmux.slowpath.mux_output import BY_ROUTE, Sent
from lbmux.slowpath.resets import outside_of_window
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.tables.lost_flows import Backends, lost_flows
from lbmux.tables.snapshot import Snapshot
from lbmux.wire.numbers import TCP_PROTOCOL

log = logging.getLogger(__name__)

SHARE = 0.5
"""The share of the slow path's packet rate that probes may cause, when every host is asked."""
RETURN_CPU_S = 0.0002
"""CPU time of one packet returned by a host (`python -m bench help`), with a margin for slower machines."""
PAUSE_S = 0.01


def takes_flows(service: Service) -> bool:
    """Return whether a backend of the service takes new flows."""
    return any(backend.weight for backend in service.backends)


class ChallengeAckProbe:
    """Compares a mux's tables before and after each commit; ``send`` sends packets as the slow path's sender does."""

    def __init__(self, snapshot: Callable[[], Snapshot], send: Callable[[Iterable[Sent]], object]) -> None:
        self._snapshot, self._send = snapshot, send
        self._backends = Backends.of(snapshot())
        self._waiting: list[Backends] = []
        """Lost backends of services that have none left, from each commit."""
        self._tasks: set[asyncio.Task[None]] = set()

    def on_commit(self, settings: SlowPath) -> None:
        """Probe the flows of backends that left the tables, once their service has a backend that takes flows.

        This needs second chance: without it, no host reports that a connection is gone.
        """
        lately, self._backends = self._backends, Backends.of(self._snapshot())
        past, self._waiting = [*self._waiting, lately], []
        empty = {service.name for service in self._backends.snapshot.services if not takes_flows(service)}
        for before in past if settings.second_chance else ():
            if not (lost := before.lost()):
                continue
            waiting = before.of_services(lost, empty)
            if waiting:
                self._waiting.append(before.only(waiting))
            later = {*waiting}  # thousands, if a whole site is lost
            if ready := [row for row in lost if row not in later]:
                self._start(before, ready, settings)

    def _start(self, before: Backends, lost: list[int], settings: SlowPath) -> None:
        hosts = max(1, min(settings.second_chance_max_hosts, int(self._backends.in_use.sum())))
        returns_per_s = min(SHARE * settings.packets_per_s, settings.second_chance_cpu / RETURN_CPU_S)
        task = asyncio.create_task(self._probe(before, lost, max(1.0, returns_per_s / hosts)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _probe(self, before: Backends, lost: list[int], per_s: float) -> None:
        flows = await asyncio.to_thread(lambda: list(lost_flows(before, lost)))
        at_once = max(1, round(per_s * PAUSE_S))
        for first in range(0, len(flows), at_once):
            segments = (outside_of_window(Flow(TCP_PROTOCOL, *ends)) for ends in flows[first : first + at_once])
            self._send([Sent(BY_ROUTE, segment) for segment in segments])
            await asyncio.sleep(at_once / per_s)
        if flows:
            log.info("probed %s of removed backends (challenge ACK)", counted(len(flows), "client"))
