"""An event of an experiment: what happens to a running system, and how it is undone."""

from collections.abc import Callable
from dataclasses import dataclass

from lbmux.lab.connections import Silence
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest

Action = Callable[[SystemUnderTest], None]


def nothing(system: SystemUnderTest) -> None:
    pass


@dataclass(frozen=True)
class Event:
    """``planned``: an operator's action, which no connection should notice.

    ``silence``: how the long connections fall silent after the event (lbmux.lab.connections.Silence), or None.
    """

    name: str
    text: str
    happen: Action
    undo: Action
    planned: bool = False
    silence: Silence | None = None
    in_silence: Action = nothing
    """What happens once all connections are silent."""
    takes_s: float = 0.0
    """Time that it may take beyond what every event may, in seconds."""
