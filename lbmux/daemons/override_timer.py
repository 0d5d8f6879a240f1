"""Ends a daemon's overrides in time (lbmux.backends.override_expiry); a manager ends those that it stores."""

import asyncio
import logging
import time
from collections.abc import Callable

from lbmux.backends.override_expiry import expire, next_time
from lbmux.daemons.reloader import Reloader
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)
POLL_S = 0.5


async def end_overrides(reloader: Reloader, clock: Callable[[], float] = time.time) -> None:
    """Run until cancelled; ``clock``: seconds since 1970."""
    while True:
        before, now = reloader.overrides, clock()
        if (at := next_time(before)) is not None and at <= now:
            try:
                await reloader.follow(expire(now))
                for key in before.of:
                    if (after := reloader.overrides.of.get(key)) != before.of[key]:
                        what = (
                            "the override has ended" if after is None else "disabled: its drain's deadline has passed"
                        )
                        log.info("backend %s of service %s: %s", key[1], key[0], what)
            except LbmuxError as error:
                log.error("overrides that have ended are still in force: %s", error)
        await asyncio.sleep(POLL_S)
