"""Check a mux's path to its hosts: next hop, agent, server, MTU."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from socket import if_nametoindex

from lbmux.addresses import Address, mac_to_int
from lbmux.api.answers import NeighbourLine
from lbmux.linux.next_hops import NextHop
from lbmux.tools.doctor.finding import Finding, fault, ok, unchecked, warning
from lbmux.tools.doctor.node_state import NodeState
from lbmux.tools.doctor.probe_targets import sources, targets
from lbmux.tools.doctor.probe_tunnels import LONGEST, Tunnels
from lbmux.tools.doctor.route_checks import route_to
from lbmux.tools.doctor.solicit import who_has
from lbmux.tools.doctor.tunnel_probe import Answer, Target, probe

ASKED_BY = {4: "ARP", 6: "neighbour discovery"}
AT_ONCE = 4096
"""Probes at a time.  Each uses its own source port."""
MOST_NAMED = 5
TUNNELS = {"ipip": "IP in IP", "gue1": "GUE", "gue0": "GUE", "gre": "GRE", "geneve": "Geneve", "direct": "no tunnel"}
WIRE_BYTES = 1500
"""Length of the longest outer packet that the path to a host should carry."""


def next_hops(node: NodeState) -> Iterator[Finding]:
    """Check that each host has a route, and that its next hop answers with the MAC address that the mux uses."""
    macs: dict[tuple[str, Address], set[str]] = {}
    wrong = 0
    for line in node.neighbours:
        host = ip_address(line.host)
        route = route_to(host)
        if route is None:
            wrong += 1
            yield fault("next hop", f"no route to host {host}", f"ip route add {host} via ROUTER")
        elif route.interface != "lo":
            key = route.interface, route.via
            if key not in macs:
                macs[key] = who_has(*key)
            finding = _neighbour(str(host), line.mac, route.via, route.interface, macs[key])
            if finding:
                wrong += 1
                yield finding
    if node.neighbours and not wrong:
        yield ok("next hop", f"the MAC addresses of all {len(node.neighbours)} hosts' next hops are correct")


def _neighbour(host: str, used: str | None, via: Address, interface: str, answered: set[str]) -> Finding | None:
    if not answered:
        seen = f"{via}, next hop of host {host}, does not answer {ASKED_BY[via.version]} on {interface}"
        return fault("next hop", seen, f"check that it is up and on this link: `ip neighbour show {via}`")
    if used is not None and used not in answered:
        seen = f"wrong MAC: frames for host {host} go to {used}, but {via} is {', '.join(sorted(answered))}"
        return fault("next hop", seen, f"ip neighbour del {via} dev {interface} (a static entry, set by hand)")
    return None


def tunnels(node: NodeState) -> Iterator[Finding]:
    """Send a SYN or a datagram through the tunnel to every backend, then one of WIRE_BYTES to every host."""
    own, (probed, left) = sources(node), targets(node)
    for reason, names in left.items():
        yield unchecked("backend", f"{_some(names)}: not probed: {reason}")
    if node.config is None or not probed:
        return
    tunnels_to = Tunnels(node.config, own.values(), {target.key for target in probed}, _hops(node, probed))
    answers: dict[Target, Answer] = {}
    for batch in (probed[at : at + AT_ONCE] for at in range(0, len(probed), AT_ONCE)):
        answers |= probe(own, batch, tunnels_to)
    for target, answer in answers.items():
        yield _finding(target, answer, own[target.host.version])
    # One long probe for each host and tunnel.  If the server is silent, a router on the path may still send an error.
    slow = [target for target, answer in answers.items() if answer.kind == "open" or _may_be_silent(target, answer)]
    paths = {(target.host, target.kind): target for target in sorted(slow, key=lambda t: answers[t].kind == "open")}
    long = [replace(target, length_bytes=WIRE_BYTES) for target in paths.values()]
    for target, answer in probe(own, long, tunnels_to).items():
        yield _fits(target, answer)


def _hops(node: NodeState, probed: list[Target]) -> dict[Address, NextHop | None]:
    """Next hops by host: for hosts without an outer header always, for others where the mux knows them."""
    known = {ip_address(line.host): line for line in node.neighbours if line.mac}
    direct = {target.host for target in probed if target.kind == "direct"}
    return {host: _hop(host, known.get(host)) for host in direct | known.keys()}


def _hop(host: Address, line: NeighbourLine | None) -> NextHop | None:
    """Return the mux's next hop. A host with all backends down is not in the mux's tables: resolve it here."""
    if line is not None and line.interface and line.source_mac and line.mac:
        return NextHop(if_nametoindex(line.interface), mac_to_int(line.source_mac), mac_to_int(line.mac), LONGEST)
    route = route_to(host)
    if route is None or route.mac is None:
        return None
    mac = next(iter(who_has(route.interface, route.via)), None)
    return NextHop(if_nametoindex(route.interface), mac_to_int(route.mac), mac_to_int(mac), LONGEST) if mac else None


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _may_be_silent(target: Target, answer: Answer) -> bool:
    return answer.kind == "silence" and target.protocol == "udp" and not target.answers


def _finding(target: Target, answer: Answer, source: Address) -> Finding:
    check, name, tunnel = "backend", target.name, TUNNELS[target.kind]
    if answer.kind == "open":
        return ok(check, f"{name} answers {'on the link' if target.kind == 'direct' else 'through the tunnel'}")
    if answer.kind == "closed":
        return fault(
            check, f"{name}: port closed: the agent delivers, but no server listens", "start the server on that host"
        )
    if answer.kind == "refused":
        seen = f"{name}: agent not running: the host answers {answer.reason} to {tunnel}"
        return fault(check, seen, "start `lbmux agent` on that host")
    if answer.kind == "unreachable":
        hint = "check that the host is up; trace the path with `ip route get`"
        if route_to(target.host) is None:
            hint = f"ip route add {target.host} via ROUTER: this mux has no route to it"
        return fault(check, f"{name}: backend down: {answer.reason} (from {answer.sender})", hint)
    if answer.kind == "too_big":
        return _fits(target, answer)
    if _may_be_silent(target, answer):
        seen = f"{name}: no answer and no error to a datagram sent by {tunnel}, which is normal for many UDP servers"
        return unchecked(check, seen, "configure a datagram that the server answers: `health: {kind: udp}`, or dns")
    seen = f"{name}: no answer through the tunnel, and no error either"
    hint = (
        f"run `lbmux doctor` on the host.  The agent accepts packets only from `muxes` of its configuration (check"
        f" {source}), the VIP must be on lo in mode local, and rp_filter or a firewall may drop the reply"
    )
    return fault(check, seen, hint)


def _fits(target: Target, answer: Answer) -> Finding:
    if answer.kind == "too_big":
        seen = f"MTU to host {target.host} is {answer.mtu or 'less than'} {'' if answer.mtu else WIRE_BYTES}".strip()
        hint = f"raise every link's MTU to {WIRE_BYTES}, or advertise a smaller MSS (advmss on the hosts' routes)"
        return fault("MTU", f"{seen} (from {answer.sender}): packets of {WIRE_BYTES} bytes are dropped there", hint)
    if _may_be_silent(target, answer):
        return unchecked("MTU", f"{WIRE_BYTES} bytes to host {target.host}: no answer and no error")
    if answer.kind == "silence":
        seen = (
            f"host {target.host} answers a short packet but not one of {WIRE_BYTES} bytes, and no router sends an error"
        )
        return warning("MTU", seen, "a link or firewall drops long packets silently: lower the route's mtu")
    if answer.kind != "open":
        return unchecked("MTU", f"{WIRE_BYTES} bytes to host {target.host}: it stopped answering: {answer.reason}")
    by = "" if target.kind == "ipip" else f" ({TUNNELS[target.kind]})"
    return ok("MTU", f"{WIRE_BYTES} bytes reach host {target.host}, tunnel included{by}")
