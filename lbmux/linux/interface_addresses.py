"""The IP addresses of the machine and of its interfaces."""

import socket
from ipaddress import ip_address

from pyroute2 import IPRoute

from lbmux.addresses import Address
from lbmux.errors import SetupError


def addresses(interface: str | None = None) -> list[Address]:
    """Return the routable addresses of the machine or of one interface, in the kernel's order."""
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=interface) if interface else [None]
        if not index:
            raise SetupError(f"interface {interface}", "not found", "`ip link` lists them")
        selected = {"index": index[0]} if interface else {}
        messages = [*ip.get_addr(family=socket.AF_INET, **selected), *ip.get_addr(family=socket.AF_INET6, **selected)]
    texts = (message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") for message in messages)
    return [address for address in map(ip_address, texts) if not (address.version == 6 and address.is_link_local)]


def first_addresses(interface: str) -> tuple[Address, ...]:
    """Return the default source addresses of outer headers: the interface's first of each family."""
    own = addresses(interface)
    if not own:
        raise SetupError(f"interface {interface}", "has no IP address", "name one by --address")
    first = {address.version: address for address in reversed(own)}
    return tuple(first[version] for version in sorted(first))
