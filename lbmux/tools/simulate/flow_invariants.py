"""The invariants that the rule for flow entries rests on, checked on a flow model, compiled."""

from lbmux.codegen.compiled import compiled_nogil
from lbmux.datapath.memory import step
from lbmux.errors import LbmuxError
from lbmux.tools.simulate.flow_delivery import mux_of
from lbmux.tools.simulate.slot_rule import NONE, UDP, is_idle

BROKEN_RULES = (
    "", "a flow is elsewhere, and its slot is steady", "an entry names another backend",
    "a flow is elsewhere, and has no entry", "a flow without an entry is not at its slot's base",
    "a backend counts as drained, and has a flow", "a steady slot has a base",
)  # fmt: skip


class InvariantError(LbmuxError):
    """``rule`` did not hold for ``flow`` at ``time_s``."""

    rule: str
    flow: int
    time_s: float

    def __str__(self) -> str:
        return f"at {self.time_s:.1f} s, flow {self.flow}: {self.rule}"


@compiled_nogil
def check(setting, flows, entries, slots, muxes, alive, salt, holds, now):  # type: ignore[no-untyped-def]
    """Return which of BROKEN_RULES was found, and the flow; (0, 0) if all hold.

    Left out: UDP, and flows that have slept longer than the idle time.
    """
    for mux in range(len(muxes)):
        if not _find_holders(slots[mux], entries[mux], holds[mux]):
            return 6, 0
    for index in range(len(flows)):
        flow = flows[index]
        if flow.owner == NONE or flow.gone or flow.slept or flow.kind == UDP:
            continue
        if not alive[flow.owner] or now - flow.seen > setting[0].idle_tcp_s:
            continue
        mux = mux_of(index, salt, muxes)
        broken = _broken_rule(setting[0], slots[mux, flow.slot], entries[mux, index], flow.owner, holds[mux], now)
        if broken:
            return broken, index
    return 0, 0


@step
def _find_holders(slots, entries, holds):  # type: ignore[no-untyped-def]
    """Set ``holds`` for backends that a drain has to wait for; return whether steady slots have no base."""
    for at in range(len(slots)):
        if not slots[at].marked and slots[at].base != slots[at].current:
            return False
        if slots[at].marked and slots[at].base != NONE:
            holds[slots[at].base] = 1
    for index in range(len(entries)):
        if entries[index].target != NONE:
            holds[entries[index].target] = 1
    return True


@step
def _broken_rule(setting, slot, entry, owner, holds, now):  # type: ignore[no-untyped-def]
    """Return which rule a flow breaks that is at ``owner``, or 0."""
    if slot.current != owner and not holds[owner]:
        return 5
    if slot.marked == 0:
        return 0 if slot.current == owner else 1
    if entry.target != NONE and not is_idle(setting, entry, now):
        return 0 if entry.target == owner else 2
    if slot.base == NONE:
        return 0 if slot.current == owner else 3
    return 0 if slot.base == owner else 4
