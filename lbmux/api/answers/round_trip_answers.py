"""Round-trip times of a host's clients."""

from dataclasses import dataclass

from lbmux.api.answers.program_answer import ProgramAnswer


@dataclass(frozen=True)
class RoundTripLine:
    """Round-trip times of a group of clients: the median, its 95 % interval, the number of connections, the time.

    ``time``: in seconds since 1970. No client's address is here: a group has at least 50 connections.
    """

    prefix: str
    rtt_ms: float
    low_ms: float
    high_ms: float
    samples: int
    time: float


@dataclass(frozen=True)
class RoundTrips(ProgramAnswer):
    round_trips: list[RoundTripLine]
