"""The last 15 minutes, second by second."""

from dataclasses import dataclass

from lbmux.api.answers.program_answer import ProgramAnswer


@dataclass(frozen=True)
class HistoryPoint:
    """Packets, bytes and new flows in one second since 1970; ``drops``: packets by verdict, without zeros.

    An agent's packets are those that it delivered, and replies; it does not count new flows (None).
    """

    second: int
    packets: float
    bytes: float
    new_flows: float | None
    drops: dict[str, float]


@dataclass(frozen=True)
class HistoryEvent:
    """A line of the daemon's log; ``time`` in seconds since 1970, ``level``: info, warning or error."""

    time: float
    level: str
    text: str


@dataclass(frozen=True)
class History(ProgramAnswer):
    """The last 15 minutes, oldest first.  A second without a point is unknown."""

    points: list[HistoryPoint]
    events: list[HistoryEvent]
