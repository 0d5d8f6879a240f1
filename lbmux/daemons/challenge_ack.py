"""Clients of a backend that dies hear of it at once: each is made to speak, and what it says is answered with a reset.

A reset has to have the client's own numbers (RFC 5961, section 3), which a mux does not know.  A segment outside of its
window makes a client that is in the middle of a connection acknowledge what it has (RFC 9293, section 3.10.7.4, first),
with its numbers.  From there on all is as with any packet of a flow that has lost its backend: hosts are asked whether
it is theirs, and where none has it the mux resets it (lbmux.slowpath.second_chance).  The flow may have another mux
by now,
or another backend: then its client's acknowledgment goes there, and nothing comes of it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from lbmux.config.slowpath_models import SlowPath
from lbmux.plurals import counted
from lbmux.slowpath.mux_slow_path import BY_ROUTE, Sent
from lbmux.slowpath.resets import outside_of_window
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.tables.lost_flows import Backends, lost_flows
from lbmux.tables.snapshot import Snapshot
from lbmux.wire.internet_checksum import TCP

log = logging.getLogger(__name__)

SHARE = 0.5
"""Of the slow path's packets in a second that may come of this, if every host is asked."""
RETURN_CPU_S = 0.0002
"""What a packet that a host gives back costs the mux (`python -m bench help`), with room for a slower machine."""
PAUSE_S = 0.01


class ChallengeAckProbe:
    """Follows a mux's tables from one configuration in force to the next.  ``send``: as the slow path's sender does."""

    def __init__(self, snapshot: Callable[[], Snapshot], send: Callable[[Iterable[Sent]], object]) -> None:
        self._snapshot, self._send = snapshot, send
        self._backends = Backends.of(snapshot())
        self._tasks: set[asyncio.Task[None]] = set()

    def on_commit(self, settings: SlowPath) -> None:
        """Probe the flows of backends that left the tables with this commit.

        Not without second chance: no host would say that a connection is gone.
        """
        before, self._backends = self._backends, Backends.of(self._snapshot())
        lost = before.lost()
        if lost and settings.second_chance:
            asked = max(
                1, min(settings.second_chance_max_hosts, int(before.there.sum()))
            )  # in vain, for each connection, at most
            returns_per_s = min(SHARE * settings.packets_per_s, settings.second_chance_cpu / RETURN_CPU_S)
            task = asyncio.create_task(self._probe(before, lost, max(1.0, returns_per_s / asked)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _probe(self, before: Backends, lost: list[int], a_second: float) -> None:
        found = await asyncio.to_thread(lambda: list(lost_flows(before, lost)))
        at_once = max(1, round(a_second * PAUSE_S))
        for first in range(0, len(found), at_once):
            segments = (outside_of_window(Flow(TCP, *ends)) for ends in found[first : first + at_once])
            self._send([Sent(BY_ROUTE, segment) for segment in segments])
            await asyncio.sleep(at_once / a_second)
        if found:
            log.info("probed %s of removed backends (challenge ACK)", counted(len(found), "client"))
