"""The end of a mux that has withdrawn: routers are told, and for a time packets come nevertheless."""

import asyncio
from collections.abc import Callable

QUIET_S = 0.5
"""Without a packet to forward for so long, the routers have found other ways."""
POLL_S = 0.05


async def wait_quiet(forwarded: Callable[[], int], most_s: float, at_once: asyncio.Event) -> None:
    """Wait until traffic stops, which the count of packets ``forwarded`` tells; ``most_s`` at most, or ``at_once``."""
    clock = asyncio.get_running_loop().time
    count, since = forwarded(), clock()
    end = since + most_s
    while not at_once.is_set() and clock() < min(since + QUIET_S, end):
        await asyncio.sleep(min(POLL_S, most_s))
        if (now := forwarded()) != count:
            count, since = now, clock()
