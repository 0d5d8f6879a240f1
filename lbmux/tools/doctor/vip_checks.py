"""Checks of where a VIP is: on no mux, on a host only where the agent's mode is local, and claimed on no link."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address

from pyroute2 import IPRoute

from lbmux.addresses import FAMILIES, Address
from lbmux.linux.next_hops import addresses
from lbmux.tools.doctor.finding import Finding, fault, ok, unchecked
from lbmux.tools.doctor.kernel_checks import number
from lbmux.tools.doctor.node_state import NodeState
from lbmux.tools.doctor.solicit import first_address, who_has

MOST_ASKED, AT_ONCE = 16, 16
"""VIPs that are asked for on every link: each costs half a second of silence."""
UP, LOOPBACK, NOBODY_ASKS = 0x1, 0x8, 0x80  # IFF_UP, IFF_LOOPBACK, IFF_NOARP


def ownership(node: NodeState) -> Iterator[Finding]:
    """The VIP as an address of this machine."""
    own = [vip for vip in node.vips if vip in set(addresses())]
    mode = (node.runtime or {}).get("mode")
    if node.role in ("mux", "router") and own:
        yield from (_own(node, vip) for vip in own)
    elif mode == "local" and set(_served(node)) - set(own):
        missing = sorted(map(str, set(_served(node)) - set(own)))
        seen = f"mode local, but {', '.join(missing)} is no address of this host: what the agent delivers is dropped"
        yield fault("VIP", seen, f"ip address add {missing[0]}/32 dev lo")
    elif node.vips:
        where = "on lo, as mode local wants it" if own else "no address of this machine, as it should be"
        yield ok("VIP", f"{where}")


def _own(node: NodeState, vip: Address) -> Finding:
    """A VIP that this mux or router has: to be removed, unless it is the address that the machine lives by."""
    role = node.role
    seen = f"this {role} has the VIP {vip} itself: its kernel answers in the backends' place"
    muxes = {*map(str, (node.runtime or {}).get("addresses", ()))}
    muxes |= {str(mux) for mux in node.config.muxes} if node.config else set()
    length, name = prefix_of(vip)
    if str(vip) in muxes:
        seen = f"the VIP {vip} is the address of {'this' if role == 'mux' else 'a'} mux, by which hosts know it"
        return fault("VIP", seen, f"give the service another VIP in the file, and leave {vip} to the {role}")
    if length < vip.max_prefixlen:
        seen += f", and {vip}/{length} is its own address on {name}"
        return fault("VIP", seen, f"give the service another VIP in the file, and leave {vip} to the {role}")
    return fault("VIP", seen, f"ip address del {vip}/{length} dev {name}")


def prefix_of(address: Address) -> tuple[int, str]:
    """The length and the interface that an address of this machine has; of several the shortest."""
    with IPRoute() as ip:
        names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in ip.get_links()}
        found = [
            (message["prefixlen"], names.get(message["index"], "?"))
            for message in ip.get_addr(family=FAMILIES[address.version])
            if str(address) in (message.get_attr("IFA_LOCAL"), message.get_attr("IFA_ADDRESS"))
        ]
    return min(found, default=(address.max_prefixlen, "the interface that has it"))


def _served(node: NodeState) -> list[object]:
    """VIPs with a backend on this host."""
    own, services = set(addresses()), node.config.services if node.config else ()
    return [service.vip for service in services if any(backend.tunnel_to in own for backend in service.backends)]


def arp_silence(node: NodeState) -> Iterator[Finding]:
    """A host with the VIP on lo must not answer for it on its link, or the link's traffic to the VIP goes to it."""
    own = set(node.vips) & set(addresses()) if node.role in ("agent", "host") else set()
    if any(isinstance(vip, IPv4Address) for vip in own):
        yield _arp(node.interface or "eth0")
    exposed = [(vip, name) for vip, name in _on_links() if vip in own]
    for vip, name in exposed:
        seen = f"{vip} is an address of {name}: this host claims the VIP by neighbour discovery"
        yield fault("VIP on link", seen, f"ip address del {vip}/128 dev {name}, and add it to lo")
    if any(isinstance(vip, IPv6Address) for vip in own) and not exposed:
        yield ok("VIP on link", "IPv6 VIPs are on lo only: this host is silent about them")


def _arp(name: str) -> Finding:
    ignore = max(number(f"net/ipv4/conf/{where}/arp_ignore") for where in ("all", name))
    announce = max(number(f"net/ipv4/conf/{where}/arp_announce") for where in ("all", name))
    if ignore < 1 or announce < 2:
        seen = f"arp_ignore is {ignore}, arp_announce {announce}: this host claims the VIP by ARP"
        hint = "sysctl net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"
        return fault("VIP by ARP", seen, hint)
    return ok("VIP by ARP", f"arp_ignore is {ignore}, arp_announce {announce}: this host is silent about the VIP")


def _on_links() -> list[tuple[Address, str]]:
    """IPv6 addresses that this machine answers for: of IPv6 those on another interface are nobody's on the link."""
    with IPRoute() as ip:
        names = {
            message["index"]: message.get_attr("IFLA_IFNAME")
            for message in ip.get_links()
            if not message["flags"] & (LOOPBACK | NOBODY_ASKS)
        }
        found = [(ip_address(m.get_attr("IFA_ADDRESS")), m["index"]) for m in ip.get_addr(family=socket.AF_INET6)]
    return [(address, names[at]) for address, at in found if at in names]


def links() -> list[str]:
    """Interfaces that are up, but for the loopback."""
    with IPRoute() as ip:
        return [m.get_attr("IFLA_IFNAME") for m in ip.get_links() if m["flags"] & (UP | LOOPBACK) == UP]


def claimed(node: NodeState) -> Iterator[Finding]:
    """Asked on the links of a router: who says it has the VIP."""
    asked, rest = node.vips[:MOST_ASKED], node.vips[MOST_ASKED:]
    pairs = [(vip, name) for vip in asked for name in links() if int(first_address(name, vip.version))]
    with ThreadPoolExecutor(AT_ONCE) as pool:  # silence takes its time on every link
        answers = pool.map(lambda pair: who_has(pair[1], pair[0]), pairs)
        claims = [(*pair, mac) for pair, macs in zip(pairs, answers, strict=True) for mac in sorted(macs)]
    for vip, name, mac in claims:
        yield _claim(vip, name, mac)
    if pairs and not claims:
        yield ok("VIP on link", "nobody on this machine's links answers for a VIP")
    if alone := [vip for vip in asked if vip not in {vip for vip, _ in pairs}]:
        seen = f"who answers for {', '.join(map(str, alone))}: no link here has an address of that version to ask from"
        yield unchecked("VIP on link", seen)
    if rest:
        seen = f"who answers for {', '.join(map(str, rest))}: {MOST_ASKED} VIPs are asked for at most"
        yield unchecked("VIP on link", seen, "ask again with a file that has only these (-c)")


def _claim(vip: Address, name: str, mac: str) -> Finding:
    if vip.version == 6:
        seen = f"{mac} on {name} answers neighbour discovery for the VIP {vip}"
        return fault("VIP on link", seen, "on that host: the VIP on lo only")
    hint = "on that host: sysctl net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2, VIP on lo only"
    return fault("VIP by ARP", f"{mac} on {name} answers ARP for the VIP {vip}", hint)
