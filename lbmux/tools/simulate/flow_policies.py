"""Policies for flow entries that `lbmux simulate flows` compares."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lbmux.tools.simulate.slot_rule import SETTINGS

IDLE_TCP_S, IDLE_UDP_S, IDLE_CLOSING_S = 300.0, 60.0, 10.0


@dataclass(frozen=True)
class Policy:
    """``tracking``: an entry for every flow, or for flows of changed slots only."""

    name: str
    tracking: Literal["all", "changed"] = "changed"
    guess: Literal["base", "newest"] = "base"
    """The target of mid-connection TCP without an entry: the slot's base, or the newest earlier table."""
    history: int = 1
    """Number of earlier tables that second chance asks before all other backends."""
    second_chance: bool = True
    exceptions: bool = True
    """Whether a settled slot keeps only the entries that deviate from its current backend."""
    udp: Literal["base until idle", "new at once", "track all"] = "base until idle"
    settle_s: float = IDLE_TCP_S
    """Time that a slot stays changing: as long as a flow may be silent."""
    udp_settle_s: float = IDLE_UDP_S
    """Time after a change in which UDP without an entry goes to the base."""
    grace_s: float = 3.0
    """Time after a change in which SYNs go to the base: an earlier SYN of the same connection may have gone there."""
    grace_open: bool = False
    """Whether the grace applies only to backends that take new flows."""
    sweep_s: float = 5.0

    @property
    def is_checked(self) -> bool:
        """Whether the rule's invariants hold by design."""
        settles_late = self.settle_s >= IDLE_TCP_S
        return self.tracking == "changed" and self.guess == "base" and self.udp != "track all" and settles_late

    def settings(self) -> NDArray[Any]:
        """Return the policy for compiled code: SETTINGS, shape (1,)."""
        row = np.zeros(1, SETTINGS)
        row["tracks_all"], row["tracks_udp"] = self.tracking == "all", self.udp == "track all"
        row["newest"], row["history"] = self.guess == "newest", self.history
        row["udp_at_once"] = self.udp == "new at once"
        for name in ("second_chance", "exceptions", "settle_s", "udp_settle_s", "grace_s", "grace_open"):
            row[name] = getattr(self, name)
        row["idle_tcp_s"], row["idle_udp_s"], row["idle_closing_s"] = IDLE_TCP_S, IDLE_UDP_S, IDLE_CLOSING_S
        return row


BASE = Policy("base")
"""The rule of `flows: changed`."""
NEWEST = Policy("newest", guess="newest", grace_s=0.0)
EVERY = (
    Policy("all", "all"),
    Policy("all, no second chance", "all", second_chance=False),
    NEWEST,
    replace(NEWEST, name="newest, 2 tables", history=2),
    replace(NEWEST, name="newest, 4 tables", history=4),
    replace(NEWEST, name="newest, no second chance", second_chance=False),
    BASE,
    replace(BASE, name="base, no second chance", second_chance=False),
    replace(BASE, name="base, no SYN grace", grace_s=0.0),
    replace(BASE, name="base, SYN grace not to drained", grace_open=True),
    replace(BASE, name="base, entries in all marked slots", exceptions=False),
    replace(BASE, name="base, settled after 60 s", settle_s=60.0),
    replace(BASE, name="base, settled after 10 s", settle_s=10.0, udp_settle_s=10.0),
    replace(BASE, name="base, UDP new at once", udp="new at once"),
    replace(BASE, name="base, UDP to the base for 20 s", udp_settle_s=20.0),
    replace(BASE, name="base, UDP tracked always", udp="track all"),
    replace(BASE, name="base, sweep every 30 s", sweep_s=30.0),
)
POLICIES = {policy.name: policy for policy in EVERY}
