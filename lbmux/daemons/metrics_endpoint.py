"""The metrics of a daemon, read from `StatusHandlers` and the announcer at each scrape."""

import asyncio
import contextlib
from collections.abc import Callable

from lbmux.bgp.announcer import Announcer
from lbmux.config.models import Config
from lbmux.daemons.status_handlers import StatusHandlers
from lbmux.metrics.families import Reading
from lbmux.metrics.loop_histograms import LoopHistograms
from lbmux.metrics.metrics_server import MetricsServer

SPEAKER_S = 1.0
SILENT = "down", "the speaker does not answer"


def serving(
    where: str | None,
    status: StatusHandlers,
    loop_histograms: LoopHistograms | None = None,
    announcer: Announcer | None = None,
    wanted: Callable[[], Config | None] = lambda: None,
) -> contextlib.AbstractAsyncContextManager[object]:
    """Return a server at ``where``, [HOST:]PORT; None: none. ``wanted`` returns the configuration with all backends."""
    if where is None:
        return contextlib.nullcontext()
    seen = dict[str, tuple[str, str]]()

    async def read() -> Reading:
        if announcer is not None:
            seen.update(dict.fromkeys(seen, SILENT) | await _peers(announcer))
        config = wanted()
        return Reading(
            status.snapshot(),
            status.driver.kernel is not None,
            status.ring.dropped() if status.ring else 0,
            loop_histograms,
            dict(seen),
            config.services if config else (),
            status.overload() if status.overload else None,
        )

    return MetricsServer(where, read)


async def _peers(announcer: Announcer) -> dict[str, tuple[str, str]]:
    """Return session state and reason by peer address; empty if the speaker does not answer."""
    with contextlib.suppress(OSError, TimeoutError):
        state = await asyncio.wait_for(announcer.state(), SPEAKER_S)
        return {peer.address: (peer.state, peer.reason) for peer in state.neighbours}
    return {}
