"""Turns states of BGP sessions into log lines: one for each change, with the reason if a session is down.  Pure."""

import logging
from collections.abc import Iterable, Iterator

from lbmux.bgp.bgp_settings import Neighbour

PATIENCE_S = 5.0
"""A session that is down without a reason is logged after this time, in seconds."""
NO_REASON = (
    "neither the speaker nor the router gives a reason; "
    "is this mux configured as a neighbour on the router, with the same password?"
)


class SessionLog:
    """Compares the sessions with the states that were logged before."""

    def __init__(self) -> None:
        self._logged: dict[str, tuple[bool, str]] = {}
        self._down_since: dict[str, float] = {}

    def changes(self, sessions: Iterable[Neighbour], now: float) -> Iterator[tuple[int, str]]:
        """Yield log levels and lines for sessions that changed; ``now`` is a monotonic time in seconds."""
        for one in sessions:
            state = one.is_up, one.reason
            if one.is_up:
                self._down_since.pop(one.address, None)
            else:
                since = self._down_since.setdefault(one.address, now)
                if not one.reason and now - since < PATIENCE_S:  # the speaker may still be starting
                    continue
            if self._logged.get(one.address) != state:
                self._logged[one.address] = state
                yield _line(one)


def _line(one: Neighbour) -> tuple[int, str]:
    session = f"BGP session with {one.address} (AS {one.number})"
    if one.is_up:
        return logging.INFO, f"{session} is established"
    return logging.WARNING, f"{session} is not established ({one.state}): {one.reason or NO_REASON}"
