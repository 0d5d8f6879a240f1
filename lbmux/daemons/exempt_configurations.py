"""Exempts each new configuration of a manager from garbage collection, as `process.ready` does with the first one.

A thousand services are some 100,000 objects without cycles. A collection that walks them takes 50 ms, in which a
manager does nothing else.
"""

import asyncio
import gc

from lbmux.manager.manager_state import Manager

SETTLE_S = 1.0
"""Time in which nodes get a revision before the collection, in seconds."""


async def exempt_configurations(manager: Manager) -> None:
    """Collect what is garbage and exempt the rest, after each change of the revision."""
    revision = manager.state.revision
    while True:
        changed = manager.changed.next
        if manager.state.revision == revision:
            await changed.wait()
            continue
        await asyncio.sleep(SETTLE_S)
        revision = manager.state.revision
        gc.collect()
        gc.freeze()
