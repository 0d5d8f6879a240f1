"""Hints for a packet that a mux does not forward: what the operator can do about its verdict."""

from collections.abc import Sequence

from lbmux.addresses import from_pair
from lbmux.datapath.verdicts import Verdict
from lbmux.tools.backend_states import BackendState, to_have_one
from lbmux.tools.mux_run import MuxRun


def hint(run: MuxRun, verdict: Verdict, target: int, states: Sequence[BackendState]) -> str:
    """Return what to do; empty if nothing helps.  ``target``: the backend's row, or -1."""
    if verdict == Verdict.NOT_VIP:
        return _no_service(run)
    row = run.snapshot.tables.backends[max(0, target)]
    host = from_pair(int(row["remote_high"]), int(row["remote_low"]))
    return {
        Verdict.NO_BACKEND: to_have_one(states),
        Verdict.DENIED: (
            f"the service's `allow` and `deny` exclude {run.packet.source}: change them, then run `lbmux reload`"
        ),
        Verdict.OVER_PACKET_RATE: "raise the service's `packets_per_s`, or find who sends this much: `lbmux top`",
        Verdict.OVER_FLOW_RATE: "raise the service's `new_flows_per_s`; established flows are not affected",
        Verdict.OVER_FLOW_SHARE: (
            f"raise the service's `new_flows_per_s` or the weight of {run.backend_name(target)}, whose share it is"
        ),
        Verdict.BLACK_HOLED: (
            "the VIP is flooded: `lbmux show top-talkers` says until when, `lbmux parole` lets it back"
        ),
        Verdict.TTL: "the packet passed too many routers: its sender should use a larger TTL",
        Verdict.NO_NEIGHBOUR: f"the next hop (`ip route get {host}`) does not answer ARP or ND: is it up?",
        Verdict.TOO_BIG: (
            f"packets to {host} may have {int(row['mtu']) - int(row['overhead_bytes'])} bytes: advertise a "
            "smaller MSS (advmss 1440 on the hosts' routes), or raise the underlay's MTU to 1520"
        ),
    }.get(verdict, "")


def _no_service(run: MuxRun) -> str:
    vip = run.packet.vip
    others = [f"{s.protocol} {s.port_text}" for s in run.snapshot.services if s.vip == vip]
    if others:
        return f"{vip} is a VIP, but only for {', '.join(others)}: add a service, then run `lbmux reload`"
    return f"no service has the VIP {vip}: add one to the configuration, then run `lbmux reload`"
