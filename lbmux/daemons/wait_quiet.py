"""Waits for traffic to stop after a mux has withdrawn: routers take time to use other paths."""

import asyncio
from collections.abc import Callable

QUIET_S = 0.5
"""After this long without a packet, the routers use other paths."""
POLL_S = 0.05


async def wait_quiet(forwarded: Callable[[], int], most_s: float, at_once: asyncio.Event) -> None:
    """Wait until ``forwarded``, a count of packets, stops growing: ``most_s`` at most, or until ``at_once`` is set."""
    clock = asyncio.get_running_loop().time
    count, since = forwarded(), clock()
    end = since + most_s
    while not at_once.is_set() and clock() < min(since + QUIET_S, end):
        await asyncio.sleep(min(POLL_S, most_s))
        if (now := forwarded()) != count:
            count, since = now, clock()
