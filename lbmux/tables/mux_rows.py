"""Makes the contents of a mux's rows of services and backends from the configuration. Pure."""

from collections.abc import Mapping
from typing import Any, get_args

from lbmux.addresses import Address, to_pair
from lbmux.config.models import Backend, Config, Service
from lbmux.config.traffic_models import TunnelKind
from lbmux.datapath.encapsulate import constant_sum, overhead_bytes_of
from lbmux.datapath.tables import (
    DRAINING,
    ENTROPY,
    FLOW_RATE,
    HASH_DESTINATION,
    HASH_SOURCE,
    OUTER_IPV6,
    PACKET_RATE,
    REJECT_RATE,
    TICK_SHIFT,
    TRACK_ALL,
    TRACK_CHANGED,
    TRACK_NONE,
    UP,
)
from lbmux.errors import SetupError
from lbmux.linux.next_hops import NextHop
from lbmux.tables.access_lists import Network
from lbmux.wire.numbers import TCP_PROTOCOL, UDP_PROTOCOL

PROTOCOLS = {"tcp": TCP_PROTOCOL, "udp": UDP_PROTOCOL}
ETHERNET_MTU = 1500
PRICE_BITS, MOST_PRICE = 22, (1 << 32) - 1
"""A price is in 2**-22 ticks; the largest one admits a packet in 1.07 s."""
TUNNEL_KINDS = get_args(TunnelKind)
PORTS, DESTINATION_PORT = 0xFFFFFFFF, 0xFFFF0000
"""Masks of both ports as loaded."""
HASHED = {
    "five_fields": (HASH_SOURCE | HASH_DESTINATION, PORTS),
    "source": (HASH_SOURCE, 0),
    "source_destination": (HASH_SOURCE | HASH_DESTINATION, 0),
    "destination_port": (0, DESTINATION_PORT),
}
TRACKING = {"changed": TRACK_CHANGED, "all": TRACK_ALL, "none": TRACK_NONE}
ROUTE = ("interface", "mtu", "source_mac", "destination_mac")
"""The fields of a backend's row that come from its next hop."""


def ticks(seconds: float) -> int:
    return int(seconds * 1e9) >> TICK_SHIFT


def price_of(per_s: float | None) -> int:
    """Return the ``price`` of a RATE row that admits ``per_s`` packets a second; 0: no limit."""
    return min(round(1e9 * (1 << PRICE_BITS - TICK_SHIFT) / per_s), MOST_PRICE) if per_s else 0


def fill_service(row: Any, config: Config, service: Service) -> None:
    """Fill a SERVICE row, whose fields of the Maglev table and the access list have been filled before."""
    row["tracking"] = TRACKING[service.tracking]
    row["idle_untrusted"], row["idle_trusted"] = ticks(service.idle.untrusted_s), ticks(service.idle_s)
    row["idle_closing"], row["seed"] = ticks(service.idle.fin_s), config.maglev.seed
    row["hashed"], row["port_mask"] = HASHED[service.hash]
    row["rejects"] = service.on_no_backend != "drop" and config.slowpath.rejects_per_s > 0
    row["limited"] = service.new_flows_per_s is not None or service.packets_per_s is not None
    if service.quic is not None:
        row["quic_bytes"], row["quic_rotation"] = service.quic.id_bytes, service.quic.rotation
    row["special"] = is_special(row)


def is_special(row: Any) -> bool:
    """Return the value of ``special`` for a SERVICE row whose other fields have been filled."""
    return bool(row["rule_count"] or row["quic_bytes"] or row["limited"] or row["tracking"] == TRACK_ALL)


def prices_of(config: Config, service: Service) -> dict[int, int]:
    """Return the price of each kind of limit of a service."""
    return {
        PACKET_RATE: price_of(service.packets_per_s),
        FLOW_RATE: price_of(service.new_flows_per_s),
        REJECT_RATE: price_of(config.slowpath.rejects_per_s),
    }


def shares_of(service: Service) -> dict[str, int]:
    """Return the price of a new flow by backend: each gets its weight's share of ``new_flows_per_s``."""
    if service.new_flows_per_s is None:
        return dict.fromkeys((backend.name for backend in service.backends), 0)
    limit, total = service.new_flows_per_s, sum(backend.weight for backend in service.backends)
    return {backend.name: price_of(limit * backend.weight / total if total else 0) for backend in service.backends}


class OuterSources:
    """The source of the outer header by version of IP: a prefix of ``tunnel.sources``, or an own address."""

    def __init__(self, own: Mapping[int, Address], prefixes: tuple[Network, ...]) -> None:
        self._own, self._prefixes = own, prefixes

    def of(self, remote: Address) -> tuple[Address, bool]:
        """Return (the source, whether its low bits vary by flow); raise SetupError if there is none."""
        wide = next((prefix for prefix in self._prefixes if prefix.version == remote.version), None)
        local = wide.network_address if wide else self._own.get(remote.version)
        if local is None:
            why = f"no own IPv{remote.version} address for packets to {remote}"
            raise SetupError("mux", why, "name one by --address")
        return local, wide is not None


def fill_backend(row: Any, backend: Backend, kind: str, service_row: int, source: tuple[Address, bool]) -> None:
    """Fill a BACKEND row except its generation and next hop. ``source``: see OuterSources."""
    (local, varies), remote = source, backend.tunnel_to
    is_ipv6, number = remote.version == 6, TUNNEL_KINDS.index(kind)
    row["local_high"], row["local_low"] = to_pair(local)
    row["remote_high"], row["remote_low"] = to_pair(remote)
    row["tunnel"] = number | OUTER_IPV6 * is_ipv6 | ENTROPY * varies
    row["overhead_bytes"] = overhead_bytes_of(number, is_ipv6)
    row["checksum"] = 0 if is_ipv6 else constant_sum(int(local), int(remote))
    row["mtu"], row["service"] = ETHERNET_MTU, service_row
    row["state"] = UP if backend.weight else DRAINING


def set_route(row: Any, hop: NextHop | None) -> None:
    """Write a next hop to a backend's row. The MAC address comes last, in one store."""
    if hop is None:
        row["destination_mac"] = 0
        return
    row["interface"], row["mtu"], row["source_mac"] = hop.interface_index, min(hop.mtu, 65535), hop.source_mac
    row["destination_mac"] = hop.destination_mac
