"""Configuration of tunnels, of the fields that are hashed, and of QUIC server IDs."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from lbmux.config.field_types import Model, Port, Prefix

TunnelKind = Literal["ipip", "gue1", "gue0", "gre", "geneve", "direct"]
"""Encapsulations, in the order of lbmux.datapath.tables; `direct`: no tunnel, the host is on the mux's link."""

HashOf = Literal["five_fields", "source", "source_destination", "destination_port"]

SOURCE_BITS = 16
"""Bits of the outer source address that carry the flow's hash."""


def _hexadecimal(value: str) -> str:
    try:
        return bytes.fromhex(value).hex()
    except ValueError:
        raise PydanticCustomError("server_id", "should be bytes in hexadecimal, such as 0a1b") from None


ServerId = Annotated[str, Field(min_length=2, max_length=16), AfterValidator(_hexadecimal)]


def _wide(prefixes: tuple[Prefix, ...]) -> tuple[Prefix, ...]:
    for prefix in prefixes:
        if prefix.max_prefixlen - prefix.prefixlen != SOURCE_BITS:
            context = {"prefix": str(prefix), "length": prefix.max_prefixlen - SOURCE_BITS}
            raise PydanticCustomError("sources", "{prefix} should be a /{length}", context)
    if len({prefix.version for prefix in prefixes}) < len(prefixes):
        raise PydanticCustomError("sources", "should have at most one prefix per address family")
    return prefixes


class Tunnel(Model):
    """Encapsulation of packets from muxes to hosts; muxes and agents must agree on it."""

    kind: TunnelKind = "ipip"
    """Encapsulation of all services and backends that do not set their own."""
    gue_port: Port = 6080
    """UDP port of GUE (draft-ietf-intarea-gue)."""
    geneve_port: Port = 6081
    """UDP port of Geneve (RFC 8926)."""
    sources: Annotated[tuple[Prefix, ...], AfterValidator(_wide)] = ()
    """A /16 (IPv6: a /112) from which the outer source address is chosen by the flow's hash, so that IP-in-IP packets
    spread over paths and receive queues. Default: the mux's own address."""

    probes: bool = True
    """Whether muxes probe each host through the tunnel with one packet per second, even for services without `health`.
    A host that misses three probes gets no traffic while another host answers."""
    probe_port: Port = 6083
    """TCP port of the VIPs to which these probes go. Agents pass them to their hosts, where nothing should listen on
    this port."""
    clamp_mss: bool = False
    """Whether agents in nat mode lower the MSS in SYN-ACKs so that packets with the largest tunnel header fit 1500
    bytes."""


class Quic(Model):
    """Layout of the server ID in a connection ID (draft-ietf-quic-load-balancers, section 5.1, plaintext)."""

    rotation: Annotated[int, Field(strict=True, ge=0, le=6)] = 0
    """Config rotation: the first three bits of a connection ID."""
    id_bytes: Annotated[int, Field(strict=True, ge=1, le=8)] = 1
    """Length of a server ID, in bytes."""
