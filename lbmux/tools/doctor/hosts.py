"""Checks of a mux's way to its hosts: next hop, agent, server, MTU."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

from lbmux.addresses import Address
from lbmux.tools.doctor.arp import who_has
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.probe import Answer, Target, probe
from lbmux.tools.doctor.routes import way
from lbmux.tools.doctor.situation import Situation

WIRE_BYTES = 1500
"""What a client's longest packets fill, less the outer header."""


def next_hops(situation: Situation) -> Iterator[Finding]:
    """Each host has a route, whose neighbour answers ARP with the MAC address that the mux uses."""
    asked: dict[tuple[str, IPv4Address], set[str]] = {}
    wrong = 0
    for line in situation.neighbours:
        host = ip_address(line["host"])
        found = way(host)
        if found is None:
            wrong += 1
            yield fault("next hop", f"no route to host {host}", f"ip route add {host} via the router")
        elif isinstance(found.via, IPv4Address) and found.interface != "lo":
            key = found.interface, found.via
            if key not in asked:
                asked[key] = who_has(*key)
            finding = _neighbour(str(host), line["mac"], found.via, found.interface, asked[key])
            if finding:
                wrong += 1
                yield finding
    if situation.neighbours and not wrong:
        yield ok("next hop", f"of {len(situation.neighbours)} hosts: MAC addresses as ARP says")


def _neighbour(host: str, used: str | None, via: IPv4Address, interface: str, answered: set[str]) -> Finding | None:
    if not answered:
        seen = f"{via}, next hop of host {host}, does not answer ARP on {interface}"
        return fault("next hop", seen, f"is it up, and on this link? `ip neighbour show {via}`")
    if used is not None and used not in answered:
        seen = f"wrong MAC: frames for host {host} go to {used}, but {via} is {', '.join(sorted(answered))}"
        return fault("next hop", seen, f"ip neighbour del {via} dev {interface}: somebody entered it by hand")
    return None


def tunnels(situation: Situation) -> Iterator[Finding]:
    """A SYN through the tunnel to every backend, then one as long as the path should take."""
    own, targets = _sources(situation), _targets(situation)
    backends = sum(len(service.backends) for service in situation.config.services) if situation.config else 0
    answers = probe(own, targets)
    for target, answer in answers.items():
        yield _said(target, answer, own[target.host.version])
    if len(targets) < backends:
        yield ok("backend", f"{backends - len(targets)} not probed: only TCP by IP in IP is")
    open_ones = {target.host: target for target, answer in answers.items() if answer.kind == "open"}
    long = [replace(target, length_bytes=WIRE_BYTES) for target in open_ones.values()]
    for target, answer in probe(own, long).items():
        yield _fits(target, answer)


def _sources(situation: Situation) -> dict[int, Address]:
    """The mux's own addresses, by version."""
    found = map(ip_address, (situation.runtime or {}).get("addresses", []))
    return {address.version: address for address in found}


def _targets(situation: Situation) -> list[Target]:
    """Backends that a probe can ask."""
    config, own = situation.config, _sources(situation)
    if config is None or situation.role != "mux":
        return []
    return [
        Target(f"{service.name}/{backend.name}", backend.tunnel_to, service.vip, service.port)
        for service in config.services
        for backend in service.backends
        if service.protocol == "tcp"
        and service.port
        and (backend.tunnel or service.tunnel or config.tunnel.kind) == "ipip"
        and {service.vip.version, backend.tunnel_to.version} <= own.keys()
    ]


def _said(target: Target, answer: Answer, source: Address) -> Finding:
    check, name = "backend", f"{target.name} at {target.host}"
    if answer.kind == "open":
        return ok(check, f"{name} answers through the tunnel")
    if answer.kind == "closed":
        return fault(check, f"{name}: port closed: the agent delivers, but no server listens", "start the server there")
    if answer.kind == "protocol":
        seen = f"{name}: agent not running: the host answers {answer.reason} to IP in IP"
        return fault(check, seen, "start `lbmux agent` there")
    if answer.kind == "unreachable":
        mend = "is the host up? `ip route get` on the way"
        return fault(check, f"{name}: backend down: {answer.reason}, says {answer.who}", mend)
    if answer.kind == "too_big":
        return _fits(target, answer)
    seen = f"{name}: no answer through the tunnel, and no error either"
    mend = (
        f"`lbmux doctor` on the host: the agent accepts only `muxes` of its configuration (is {source} one?), the VIP"
        " must be on lo in mode local, and rp_filter on the router or a firewall may drop the reply"
    )
    return fault(check, seen, mend)


def _fits(target: Target, answer: Answer) -> Finding:
    if answer.kind == "too_big":
        seen = f"MTU to host {target.host} is {answer.mtu or 'less than'} {'' if answer.mtu else WIRE_BYTES}".strip()
        mend = f"let every link carry {WIRE_BYTES}, or offer clients an MSS that fits (advmss on the hosts' routes)"
        return fault("MTU", f"{seen}, says {answer.who}: packets of {WIRE_BYTES} bytes end there", mend)
    if answer.kind == "silence":
        seen = f"host {target.host} answers a short packet, but none of {WIRE_BYTES} bytes, and nobody says why"
        return warning("MTU", seen, "some link or firewall drops long packets silently: lower the route's mtu")
    return ok("MTU", f"{WIRE_BYTES} bytes reach host {target.host}, tunnel included")
