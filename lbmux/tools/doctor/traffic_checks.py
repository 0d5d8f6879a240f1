"""Check the daemon's counters: verdicts and look-ups that point to a fault elsewhere."""

from collections.abc import Iterator, Mapping

from lbmux.plurals import counted
from lbmux.tools.doctor.finding import Finding, State, ok, warning
from lbmux.tools.doctor.node_state import NodeState

FULL_SHARE = 0.9
"""The share of the flow table above which it is reported as full."""
VERDICTS: Mapping[str, tuple[State, str, str]] = {
    "no_neighbour": (
        "warning", "had a next hop without a known MAC address", "`lbmux show neighbours` lists the hosts without one",
    ),
    "too_big": (
        "warning", "did not fit the path to their host once encapsulated",
        "advertise a smaller MSS (advmss 1440 on the hosts' routes), or raise the underlay's MTU to 1520",
    ),
    "truncated": ("warning", "ended within a header", "find their sender with `lbmux capture` or tcpdump"),
    "malformed": ("warning", "had an impossible length or version", "find their sender with tcpdump -e"),
    "no_backend": ("fault", "had no backend that takes new flows", "set a weight above 0 for one, then `lbmux reload`"),
    "denied": ("warning", "came from a source that their service denies", "check `allow` and `deny` of the service"),
    "over_packet_rate": (
        "warning", "exceeded the `packets_per_s` of their service",
        "raise the limit, or find the senders with `lbmux capture --at drop`",
    ),
    "over_flow_rate": (
        "warning", "began a flow beyond the `new_flows_per_s` of their service",
        "check for a SYN flood with `lbmux capture --at drop`; otherwise raise the limit",
    ),
    "over_flow_share": (
        "warning", "began a flow beyond their backend's share of `new_flows_per_s`",
        "check for a flood with `lbmux capture --at drop`; otherwise raise the limit, or the backend's weight",
    ),
    "black_holed": (
        "warning", "were to a VIP that is flooded", "see `lbmux show top-talkers`; `lbmux parole VIP` lets it back",
    ),
    "unsent": (
        "fault", "did not fit in the transmit queue", "check that the interface is up and its queue is long enough",
    ),
    "not_a_mux": (
        "fault", "were tunnelled from an address that is not a mux",
        "add the mux's address (its --address) to `muxes` in the configuration, then run `lbmux reload` on the agents",
    ),
    "no_local_backend": (
        "fault", "were tunnelled here for a VIP that has no backend here",
        "the mux has a different configuration: give both the same file and reload both",
    ),
    "out_of_table": ("fault", "met an index beyond its table", "a bug in lbmux: save the counters and report it"),
}  # fmt: skip
"""Maps a verdict to severity, what happened to the packets, and a hint."""


def verdicts(node: NodeState) -> Iterator[Finding]:
    """Report error verdicts since the tables were created.  A fault that was fixed stays in the counters."""
    if node.counters is None:
        return
    packets = node.counters["verdicts"]
    names = [name for name in VERDICTS if packets.get(name)]
    for name in names:
        state, what, hint = VERDICTS[name]
        yield Finding(name, state, f"{counted(packets[name], 'packet')} {what}, since the tables were created", hint)
    if not names:
        yield ok("verdicts", "no packet had an error verdict")


def flow_table(node: NodeState) -> Iterator[Finding]:
    """Check the flow table.  Without an entry a flow follows the Maglev table, and moves when backends change."""
    if node.runtime is None or node.counters is None:
        return
    flows, lookups = node.runtime.tables["flows"], node.counters["lookups"]
    evicted, full = lookups["evicted"], lookups["full"]
    packets = counted(full, "packet")
    seen = f"{flows.used} of {flows.rows} flows; {packets} found the table full, {evicted} evicted a live flow"
    if evicted or full or flows.used > FULL_SHARE * flows.rows:
        hint = "check for a SYN flood; otherwise raise flows.limit and restart the mux"
        yield warning("flow table", f"full now or earlier: {seen}", hint)
    else:
        yield ok("flow table", seen)


def overload(node: NodeState) -> Iterator[Finding]:
    """Report a mux that gets more packets than it can forward."""
    state = node.runtime.overload if node.runtime else None
    if state is None:
        return
    for vip, hole in state.black_holes.items():
        hint = f"find the senders with `lbmux capture --at drop`; to end it: `lbmux parole {vip}`"
        left = f"for {hole.left_s:.0f} s more at most, {counted(hole.relapses, 'relapse')}"
        where = ", upstream too" if hole.upstream else ""
        yield warning("black hole", f"all packets to VIP {vip} are dropped{where}, since it is flooded: {left}", hint)
    if state.seconds is not None:
        hint = "find the VIP with `lbmux show top-talkers`; limit its `packets_per_s`, withdraw it, or add muxes"
        over = f"; over their fair share: {', '.join(state.admitted)}" if state.admitted else ""
        yield warning("overload", f"overloaded for {state.seconds:.1f} s: {state.reason}{over}", hint)
    elif state.times:
        yield ok("overload", f"not now; {counted(state.times, 'time')} since the start, last: {state.reason}")
    else:
        yield ok("overload", "none since the start")


def ring(node: NodeState) -> Iterator[Finding]:
    """Report frames that the receive ring dropped because user space did not read them in time."""
    if node.counters is None or not node.counters["ring"]:
        return
    lost = node.counters["ring"]["dropped"]
    if lost:
        yield warning("ring", f"{counted(lost, 'frame')} arrived faster than user space read them", "use --driver xdp")
    else:
        yield ok("ring", "no frame was lost")
