"""Check who owns a VIP: not a mux, a host only where its agent runs in mode local, and no machine on a link."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address

from pyroute2 import IPRoute

from lbmux.addresses import FAMILIES, Address
from lbmux.linux.interface_addresses import addresses
from lbmux.tools.doctor.finding import Finding, fault, ok, unchecked
from lbmux.tools.doctor.kernel_checks import number
from lbmux.tools.doctor.node_state import NodeState
from lbmux.tools.doctor.solicit import first_address, who_has

MOST_ASKED, AT_ONCE = 16, 16
"""VIPs that are looked up on every link, and look-ups at a time.  Each unanswered look-up takes half a second."""
UP, LOOPBACK, NO_ARP = 0x1, 0x8, 0x80  # IFF_UP, IFF_LOOPBACK, IFF_NOARP


def ownership(node: NodeState) -> Iterator[Finding]:
    """Check that this machine has the VIP only where its role and mode need it."""
    own = [vip for vip in node.vips if vip in set(addresses())]
    mode = node.runtime.mode if node.runtime else None
    if node.role in ("mux", "router") and own:
        yield from (_own(node, vip) for vip in own)
    elif mode == "local" and set(_served(node)) - set(own):
        missing = sorted(map(str, set(_served(node)) - set(own)))
        seen = (
            f"mode local, but {', '.join(missing)} is not an address of this host, which drops what the agent delivers"
        )
        yield fault("VIP", seen, f"ip address add {missing[0]}/32 dev lo")
    elif node.vips:
        where = "on lo, as mode local needs" if own else "not an address of this machine, as expected"
        yield ok("VIP", f"{where}")


def _own(node: NodeState, vip: Address) -> Finding:
    """Report a VIP that this mux or router has.  Suggest removing it, unless it is the machine's main address."""
    role = node.role
    seen = f"this {role} has the VIP {vip} as an address: its kernel answers instead of the backends"
    muxes = set(node.runtime.addresses if node.runtime else ())
    muxes |= {str(mux) for mux in node.config.muxes} if node.config else set()
    length, name = prefix_of(vip)
    if str(vip) in muxes:
        seen = f"the VIP {vip} is also the address that identifies {'this' if role == 'mux' else 'a'} mux to its hosts"
        return fault("VIP", seen, f"give the service another VIP in the file and keep {vip} for the {role}")
    if length < vip.max_prefixlen:
        seen += f", and {vip}/{length} is its interface address on {name}"
        return fault("VIP", seen, f"give the service another VIP in the file and keep {vip} for the {role}")
    return fault("VIP", seen, f"ip address del {vip}/{length} dev {name}")


def prefix_of(address: Address) -> tuple[int, str]:
    """Return the prefix length and interface of an address of this machine; of several, the shortest prefix."""
    with IPRoute() as ip:
        names = {message["index"]: message.get_attr("IFLA_IFNAME") for message in ip.get_links()}
        prefixes = [
            (message["prefixlen"], names.get(message["index"], "?"))
            for message in ip.get_addr(family=FAMILIES[address.version])
            if str(address) in (message.get_attr("IFA_LOCAL"), message.get_attr("IFA_ADDRESS"))
        ]
    return min(prefixes, default=(address.max_prefixlen, "its interface"))


def _served(node: NodeState) -> list[object]:
    """Return the VIPs that have a backend on this host."""
    own, services = set(addresses()), node.config.services if node.config else ()
    return [service.vip for service in services if any(backend.tunnel_to in own for backend in service.backends)]


def arp_silence(node: NodeState) -> Iterator[Finding]:
    """Check that a host with the VIP on lo does not answer for it on its link and attract the link's VIP traffic."""
    own = set(node.vips) & set(addresses()) if node.role in ("agent", "host") else set()
    if any(isinstance(vip, IPv4Address) for vip in own):
        yield _arp(node.interface or "eth0")
    exposed = [(vip, name) for vip, name in _on_links() if vip in own]
    for vip, name in exposed:
        seen = f"{vip} is an address of {name}: this host answers neighbour discovery for the VIP"
        yield fault("VIP on link", seen, f"ip address del {vip}/128 dev {name}, and add it to lo")
    if any(isinstance(vip, IPv6Address) for vip in own) and not exposed:
        yield ok("VIP on link", "IPv6 VIPs are on lo only: this host does not answer for them")


def _arp(name: str) -> Finding:
    ignore = max(number(f"net/ipv4/conf/{where}/arp_ignore") for where in ("all", name))
    announce = max(number(f"net/ipv4/conf/{where}/arp_announce") for where in ("all", name))
    if ignore < 1 or announce < 2:
        seen = f"arp_ignore is {ignore}, arp_announce {announce}: this host answers ARP for the VIP"
        hint = "sysctl net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"
        return fault("VIP by ARP", seen, hint)
    return ok(
        "VIP by ARP", f"arp_ignore is {ignore}, arp_announce {announce}: this host does not answer ARP for the VIP"
    )


def _on_links() -> list[tuple[Address, str]]:
    """IPv6 addresses that this machine answers for, with their interfaces.

    Linux answers neighbour discovery only for addresses of the interface that the solicitation arrives on.
    """
    with IPRoute() as ip:
        names = {
            message["index"]: message.get_attr("IFLA_IFNAME")
            for message in ip.get_links()
            if not message["flags"] & (LOOPBACK | NO_ARP)
        }
        pairs = [(ip_address(m.get_attr("IFA_ADDRESS")), m["index"]) for m in ip.get_addr(family=socket.AF_INET6)]
    return [(address, names[at]) for address, at in pairs if at in names]


def links() -> list[str]:
    """Return the names of all interfaces that are up, except loopback."""
    with IPRoute() as ip:
        return [m.get_attr("IFLA_IFNAME") for m in ip.get_links() if m["flags"] & (UP | LOOPBACK) == UP]


def claimed(node: NodeState) -> Iterator[Finding]:
    """Ask on each of the router's links whether a machine claims a VIP by ARP or neighbour discovery."""
    checked, rest = node.vips[:MOST_ASKED], node.vips[MOST_ASKED:]
    pairs = [(vip, name) for vip in checked for name in links() if int(first_address(name, vip.version))]
    with ThreadPoolExecutor(AT_ONCE) as pool:  # each unanswered look-up waits for its timeout
        answers = pool.map(lambda pair: who_has(pair[1], pair[0]), pairs)
        claims = [(*pair, mac) for pair, macs in zip(pairs, answers, strict=True) for mac in sorted(macs)]
    for vip, name, mac in claims:
        yield _claim(vip, name, mac)
    if pairs and not claims:
        yield ok("VIP on link", "no machine on this router's links answers for a VIP")
    if alone := [vip for vip in checked if vip not in {vip for vip, _ in pairs}]:
        seen = f"{', '.join(map(str, alone))}: no link here has a source address of that IP version to ask from"
        yield unchecked("VIP on link", seen)
    if rest:
        seen = f"{', '.join(map(str, rest))}: at most {MOST_ASKED} VIPs are looked up in one run"
        yield unchecked("VIP on link", seen, "run again with a file that has only these (-c)")


def _claim(vip: Address, name: str, mac: str) -> Finding:
    if vip.version == 6:
        seen = f"{mac} on {name} answers neighbour discovery for the VIP {vip}"
        return fault("VIP on link", seen, "keep the VIP on lo only on that host")
    hint = "on that host: sysctl net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2, VIP on lo only"
    return fault("VIP by ARP", f"{mac} on {name} answers ARP for the VIP {vip}", hint)
