"""Checks of what the daemon has counted: verdicts and look-ups that tell of a fault elsewhere."""

from collections.abc import Iterator, Mapping

from lbmux.plurals import counted
from lbmux.tools.doctor.finding import Finding, State, ok, warning
from lbmux.tools.doctor.node_state import NodeState

FULL_SHARE = 0.9
"""Of the flow table."""
VERDICTS: Mapping[str, tuple[State, str, str]] = {
    "no_neighbour": (
        "warning", "had no MAC address of their next hop yet", "`lbmux show neighbours` names the hosts without one",
    ),
    "too_big": (
        "warning", "did not fit the path to their host once encapsulated",
        "offer clients a smaller MSS (advmss 1440 on the hosts' routes), or let the underlay carry 1520",
    ),
    "truncated": ("warning", "end within a header", "look at who sends them: `lbmux capture`, or tcpdump"),
    "malformed": ("warning", "have lengths or a version that cannot be", "look at who sends them: tcpdump -e"),
    "no_backend": ("fault", "had no backend that takes new flows", "give one a weight above 0, and `lbmux reload`"),
    "denied": ("warning", "came from a source that their service denies", "see `allow` and `deny` of the service"),
    "unsent": ("fault", "found no room to be sent in", "is the interface down, or its queue too short?"),
    "not_a_mux": (
        "fault", "were tunnelled, but from none of the muxes",
        "add the mux's address (its --address) to `muxes` in the configuration, and `lbmux reload` the agents",
    ),
    "not_here": (
        "fault", "were tunnelled here for a VIP that has no backend here",
        "the mux has another configuration: give both the same file, and reload both",
    ),
    "out_of_table": ("fault", "met an index beyond its table", "a fault of lbmux: keep the counters and report it"),
}  # fmt: skip
"""By verdict: how bad it is, what its packets were, and how to mend it."""


def verdicts(node: NodeState) -> Iterator[Finding]:
    """Since the daemon's tables are there: a fault that was mended goes on being told, as a warning would."""
    if node.counters is None:
        return
    packets = node.counters["verdicts"]
    found = [name for name in VERDICTS if packets.get(name)]
    for name in found:
        state, what, hint = VERDICTS[name]
        yield Finding(name, state, f"{counted(packets[name], 'packet')} {what}, since the tables were made", hint)
    if not found:
        yield ok("verdicts", "no packet met a fault")


def flow_table(node: NodeState) -> Iterator[Finding]:
    """A full one forwards by the Maglev table alone, which a change of backends moves."""
    if node.runtime is None or node.counters is None:
        return
    flows, lookups = node.runtime["tables"]["flows"], node.counters["lookups"]
    evicted, full = lookups["evicted"], lookups["full"]
    packets = counted(full, "packet")
    seen = f"{flows['used']} of {flows['rows']} flows; {packets} found no place, {evicted} took a live flow's"
    if evicted or full or flows["used"] > FULL_SHARE * flows["rows"]:
        hint = "is it a SYN flood? else raise flows.limit, and start the mux anew"
        yield warning("flow table", f"full, or was: {seen}", hint)
    else:
        yield ok("flow table", seen)


def ring(node: NodeState) -> Iterator[Finding]:
    """Frames that nobody fetched in time."""
    if node.counters is None or not node.counters["ring"]:
        return
    lost = node.counters["ring"]["dropped"]
    if lost:
        yield warning("ring", f"{counted(lost, 'frame')} came faster than user space fetched them", "use --driver xdp")
    else:
        yield ok("ring", "no frame was lost")
