"""How traffic travels: encapsulations, what is hashed, QUIC server ids, as parts of the configuration."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from lbmux.config.field_types import Model, Port, Prefix

TunnelKind = Literal["ipip", "gue1", "gue0", "gre", "geneve", "direct"]
"""In the order of lbmux.datapath.tables; `direct`: no tunnel, the host is on the mux's link."""

HashOf = Literal["five_fields", "source", "source_destination", "destination_port"]

SOURCE_BITS = 16
"""Bits of the outer source address that carry the flow's hash."""


def _hexadecimal(value: str) -> str:
    try:
        return bytes.fromhex(value).hex()
    except ValueError:
        raise PydanticCustomError("server_id", "should be bytes in hexadecimal (0a1b, say)") from None


ServerId = Annotated[str, Field(min_length=2, max_length=16), AfterValidator(_hexadecimal)]


def _wide(prefixes: tuple[Prefix, ...]) -> tuple[Prefix, ...]:
    for prefix in prefixes:
        if prefix.max_prefixlen - prefix.prefixlen != SOURCE_BITS:
            said = {"prefix": str(prefix), "length": prefix.max_prefixlen - SOURCE_BITS}
            raise PydanticCustomError("sources", "{prefix} should be a /{length}", said)
    if len({prefix.version for prefix in prefixes}) < len(prefixes):
        raise PydanticCustomError("sources", "there should be one prefix of a family at most")
    return prefixes


class Tunnel(Model):
    """How packets travel from a mux to a host, and what both must agree on."""

    kind: TunnelKind = "ipip"
    """Encapsulation of all services and backends that do not set their own."""
    gue_port: Port = 6080
    """UDP port of GUE (draft-ietf-intarea-gue)."""
    geneve_port: Port = 6081
    """UDP port of Geneve (RFC 8926)."""
    sources: Annotated[tuple[Prefix, ...], AfterValidator(_wide)] = ()
    """A /16 (IPv6: a /112) that outer source addresses are taken from, by the flow's hash, so that IP in IP spreads
    over paths and receive queues. Default: the mux's own address."""

    probes: bool = True
    """Whether muxes probe each host through the tunnel, by one packet a second, for services without `health` too. A
    host that does not answer three of them gets no traffic while another host does."""
    probe_port: Port = 6083
    """The TCP port of VIPs that these probes go to: nobody should listen there. Agents pass them on to their hosts."""
    clamp_mss: bool = False
    """Agents that translate lower the MSS in SYN-ACKs to what fits 1500 bytes beside the largest tunnel header."""


class Quic(Model):
    """Where the server id stands in a connection id (draft-ietf-quic-load-balancers, section 5.1, in the clear)."""

    rotation: Annotated[int, Field(strict=True, ge=0, le=6)] = 0
    """The configuration's number: the first three bits of a connection id."""
    id_bytes: Annotated[int, Field(strict=True, ge=1, le=8)] = 1
    """Bytes of a server id."""
