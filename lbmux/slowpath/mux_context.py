"""The configuration of a mux's slow path."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from lbmux.addresses import Address
from lbmux.config.slowpath_models import SlowPath
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.slowpath.tunnels import IANA_PORTS, Carrier, Ports
from lbmux.wire.numbers import TCP_PROTOCOL, UDP_PROTOCOL


@dataclass(frozen=True)
class MuxContext:
    """What the slow path needs of the mux's configuration. Addresses are as the models have them."""

    settings: SlowPath
    vips: Mapping[Address, Flow]
    """The flow by which pings of each VIP are forwarded: its service's protocol and port, without a client."""
    muxes: frozenset[Address] = frozenset()
    hosts: Mapping[Address, Collection[Carrier]] = field(default_factory=dict)
    """The kinds of outer packets to each host."""
    ports: Ports = IANA_PORTS


def vips_of(services: Iterable[tuple[Address, str, int]]) -> dict[Address, Flow]:
    """Return MuxContext.vips, from (VIP, protocol, port) of each service."""
    return {
        vip: Flow(TCP_PROTOCOL if protocol == "tcp" else UDP_PROTOCOL, vip, 0, vip, port)
        for vip, protocol, port in services
    }
