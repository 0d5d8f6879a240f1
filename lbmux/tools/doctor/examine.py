"""All checks of a role, one after another; a check that cannot look says so, and the others go on."""

from collections.abc import Callable, Iterator

from pyroute2.netlink.exceptions import NetlinkError

from lbmux.errors import LbmuxError
from lbmux.tools.doctor import (
    bgp,
    daemon,
    flow_entries,
    hosts,
    interfaces,
    kernel,
    place,
    pool,
    rights,
    routes,
    traffic,
    vips,
)
from lbmux.tools.doctor.finding import Finding, warning
from lbmux.tools.doctor.situation import Role, Situation

Check = Callable[[Situation], Iterator[Finding]]

EVERYWHERE: tuple[Check, ...] = (place.namespace, rights.rights, kernel.clock, daemon.answers, daemon.configuration)
CHECKS: dict[Role, tuple[Check, ...]] = {
    "mux": (
        daemon.driver, daemon.health, daemon.in_force, bgp.sessions, pool.same_tables, interfaces.link,
        interfaces.super_frames, kernel.forwarding, kernel.reverse_path, vips.ownership, hosts.next_hops, hosts.tunnels,
        traffic.flow_table, traffic.ring, traffic.verdicts,
    ),
    "agent": (
        daemon.driver, interfaces.link, interfaces.super_frames, kernel.reverse_path, vips.ownership, vips.arp_silence,
        routes.replies, kernel.wrong_checksums, traffic.ring, traffic.verdicts, flow_entries.sockets,
        flow_entries.replies, flow_entries.held,
    ),
    "router": (
        kernel.forwarding, kernel.reverse_path, kernel.multipath_hash, interfaces.unfinished_checksums,
        vips.ownership, routes.spreading, vips.claimed,
    ),
    "host": (kernel.reverse_path, vips.arp_silence, routes.replies, kernel.wrong_checksums, flow_entries.held),
}  # fmt: skip
"""By role, in the order in which they are told: causes before what comes of them."""


def examine(situation: Situation) -> Iterator[Finding]:
    for check in EVERYWHERE + CHECKS[situation.role]:
        try:
            yield from check(situation)
        except (LbmuxError, NetlinkError, OSError) as error:
            name = check.__name__.replace("_", " ")
            yield warning(name, f"cannot be looked at: {error}", "mend what stands above, and ask again")
