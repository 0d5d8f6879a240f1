"""Run all checks of a role in order.  A check that fails to run is reported, and the others continue."""

from collections.abc import Callable, Iterator

from pyroute2.netlink.exceptions import NetlinkError

from lbmux.errors import LbmuxError
from lbmux.tools.doctor import (
    bgp_checks,
    capability_checks,
    daemon_checks,
    daemon_namespace,
    flow_entries,
    host_checks,
    interface_checks,
    kernel_checks,
    pool_checks,
    route_checks,
    traffic_checks,
    vip_checks,
)
from lbmux.tools.doctor.finding import Finding, warning
from lbmux.tools.doctor.node_state import NodeState, Role

Check = Callable[[NodeState], Iterator[Finding]]

EVERYWHERE: tuple[Check, ...] = (
    daemon_namespace.namespace,
    capability_checks.rights,
    kernel_checks.clock,
    daemon_checks.answers,
    daemon_checks.configuration,
)
CHECKS: dict[Role, tuple[Check, ...]] = {
    "mux": (
        daemon_checks.driver, daemon_checks.health, daemon_checks.in_force, bgp_checks.sessions,
        pool_checks.same_tables, interface_checks.link,
        interface_checks.super_frames, kernel_checks.forwarding, kernel_checks.reverse_path, vip_checks.ownership,
        host_checks.next_hops, host_checks.tunnels,
        traffic_checks.flow_table, traffic_checks.overload, traffic_checks.ring, traffic_checks.verdicts,
    ),
    "agent": (
        daemon_checks.driver, interface_checks.link, interface_checks.super_frames, kernel_checks.reverse_path,
        vip_checks.ownership, vip_checks.arp_silence,
        route_checks.replies, kernel_checks.wrong_checksums, traffic_checks.ring, traffic_checks.verdicts,
        flow_entries.sockets,
        flow_entries.replies, flow_entries.held,
    ),
    "edge": (bgp_checks.sessions,),
    "balancing-edge": (
        daemon_checks.driver, bgp_checks.sessions, pool_checks.same_tables, interface_checks.link,
        interface_checks.super_frames, traffic_checks.flow_table, traffic_checks.overload, traffic_checks.ring,
        traffic_checks.verdicts,
    ),
    "router": (
        kernel_checks.forwarding, kernel_checks.reverse_path, kernel_checks.multipath_hash,
        interface_checks.unfinished_checksums,
        vip_checks.ownership, route_checks.spreading, vip_checks.claimed,
    ),
    "host": (kernel_checks.reverse_path, vip_checks.arp_silence, route_checks.replies, kernel_checks.wrong_checksums,
    flow_entries.held),
}  # fmt: skip
"""The checks of each role in the order of the report: causes before their consequences."""


def examine(node: NodeState) -> Iterator[Finding]:
    for check in EVERYWHERE + CHECKS[node.role]:
        try:
            yield from check(node)
        except (LbmuxError, NetlinkError, OSError) as error:
            name = check.__name__.replace("_", " ")
            yield warning(name, f"check failed: {error}", "fix the findings above and run the doctor again")
