"""Checks of where a VIP is: on no mux, on a host only where the agent's mode is local, and answered by ARP nowhere."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address

from pyroute2 import IPRoute

from lbmux.control.neighbours import addresses
from lbmux.tools.doctor.arp import first_address, who_has
from lbmux.tools.doctor.finding import Finding, fault, ok
from lbmux.tools.doctor.kernel import number
from lbmux.tools.doctor.situation import Situation

MOST_ASKED, AT_ONCE = 16, 16
"""VIPs that are asked for by ARP: each costs half a second of silence."""


def ownership(situation: Situation) -> Iterator[Finding]:
    """The VIP as an address of this machine."""
    own = [vip for vip in situation.vips if vip in set(addresses())]
    mode = (situation.runtime or {}).get("mode")
    if situation.role in ("mux", "router") and own:
        seen = f"this {situation.role} has the VIP {own[0]} itself: its kernel answers in the backends' place"
        yield fault("VIP", seen, f"ip address del {own[0]}/32 from the interface that has it")
    elif mode == "local" and set(_served(situation)) - set(own):
        missing = sorted(map(str, set(_served(situation)) - set(own)))
        seen = f"mode local, but {', '.join(missing)} is no address of this host: what the agent delivers is dropped"
        yield fault("VIP", seen, f"ip address add {missing[0]}/32 dev lo")
    elif situation.vips:
        where = "on lo, as mode local wants it" if own else "no address of this machine, as it should be"
        yield ok("VIP", f"{where}")


def _served(situation: Situation) -> list[object]:
    """VIPs with a backend on this host."""
    own, services = set(addresses()), situation.config.services if situation.config else ()
    return [service.vip for service in services if any(backend.tunnel_to in own for backend in service.backends)]


def arp_silence(situation: Situation) -> Iterator[Finding]:
    """A host with the VIP on lo must not answer for it on its link, or the link's traffic to the VIP goes to it."""
    if situation.role not in ("agent", "host") or not set(situation.vips) & set(addresses()):
        return
    name = situation.interface or "eth0"
    ignore = max(number(f"net/ipv4/conf/{where}/arp_ignore") for where in ("all", name))
    announce = max(number(f"net/ipv4/conf/{where}/arp_announce") for where in ("all", name))
    if ignore < 1 or announce < 2:
        seen = f"arp_ignore is {ignore}, arp_announce {announce}: this host claims the VIP by ARP"
        mend = "sysctl net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"
        yield fault("VIP by ARP", seen, mend)
    else:
        yield ok("VIP by ARP", f"arp_ignore is {ignore}, arp_announce {announce}: this host is silent about the VIP")


def claimed(situation: Situation) -> Iterator[Finding]:
    """Asked on the links of a router: who says it has the VIP."""
    asked = [vip for vip in situation.vips if isinstance(vip, IPv4Address)][:MOST_ASKED]
    with IPRoute() as ip:
        names = [m.get_attr("IFLA_IFNAME") for m in ip.get_links() if m["flags"] & 0x9 == 0x1]  # up, no loopback
    pairs = [(vip, name) for vip in asked for name in names if first_address(name) != IPv4Address(0)]
    with ThreadPoolExecutor(AT_ONCE) as pool:  # silence takes its time on every link
        answers = pool.map(lambda pair: who_has(pair[1], pair[0]), pairs)
        claims = [(*pair, mac) for pair, macs in zip(pairs, answers, strict=True) for mac in sorted(macs)]
    for vip, name, mac in claims:
        seen = f"{mac} on {name} answers ARP for the VIP {vip}"
        mend = "on that host: sysctl net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2, VIP on lo only"
        yield fault("VIP by ARP", seen, mend)
    if asked and not claims:
        yield ok("VIP by ARP", "nobody on this machine's links answers for a VIP")
