"""BGP sessions and announced prefixes."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class BgpNeighbour:
    """A BGP session; ``number`` is the neighbour's AS.  ``uptime_s`` is None and ``reason`` set while it is down."""

    address: str
    number: int
    state: str
    uptime_s: float | None
    prefixes: int
    bfd: str
    reason: str


@dataclass(frozen=True)
class Bgp:
    """The announced prefixes, those with a longer AS path, and the sessions; ``held``: all are withdrawn by command.

    ``prepended``: how often the own AS is prepended to all paths by command. ``withdrawn``: VIPs that were withdrawn by
    command one by one.
    """

    version: int
    speaker: str
    prefixes: list[str]
    last_resort: list[str]
    neighbours: list[BgpNeighbour]
    held: bool
    prepended: int = 0
    withdrawn: list[str] = field(default_factory=list)
