"""The path from the mux to each host: how large a packet it takes, as routers on it say (RFC 1191, RFC 8201).

Such an error is about the outer packet, which the mux sent.  It quotes that one, and behind its header perhaps enough
of the client's packet to tell the client (RFC 2003, section 4).
"""

import struct
from dataclasses import dataclass

from lbmux.addresses import Address
from lbmux.slowpath.errors import (
    ICMP_BYTES,
    NEEDS_FRAGMENTATION,
    TIME_EXCEEDED,
    UNREACHABLE,
    V6_TIME_EXCEEDED,
    V6_TOO_BIG,
    V6_UNREACHABLE,
)
from lbmux.slowpath.packets import Packet, read_ip
from lbmux.slowpath.quoted import quote_in

LIFETIME_S = 600.0
"""RFC 1191, section 6.3: after about ten minutes a larger one is tried again."""
LEAST_BYTES = {4: 552, 6: 1280}
"""Smaller ones are not believed: paths are not like that, forgers may be (Linux has the same bound for IPv4)."""
PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 552)
"""RFC 1191, section 7.1: what to try where the router is too old to say."""
MOST_HOSTS = 65536


@dataclass(frozen=True)
class OuterError:
    """``mtu_bytes``: of the path, where it was too narrow; ``inner``: the client's packet, as far as quoted."""

    host: Address
    mtu_bytes: int | None
    inner: Packet | None


def read_outer_error(error: Packet) -> OuterError | None:
    """What an ICMP error to the mux says of one of its outer packets."""
    quote = quote_in(error)
    if quote is None or quote.source != error.destination or quote.offset_bytes:
        return None
    kind, code = error.payload[:2]
    mtu_bytes = None
    if error.version == 4:
        if kind not in (UNREACHABLE, TIME_EXCEEDED):
            return None
        if kind == UNREACHABLE and code == NEEDS_FRAGMENTATION:
            (said,) = struct.unpack_from("!H", error.payload, 6)
            mtu_bytes = said or next((one for one in PLATEAUS if one < quote.length_bytes), LEAST_BYTES[4])
    elif kind == V6_TOO_BIG:
        (mtu_bytes,) = struct.unpack_from("!I", error.payload, 4)
    elif kind not in (V6_UNREACHABLE, V6_TIME_EXCEEDED):
        return None
    if mtu_bytes is not None:
        mtu_bytes = max(mtu_bytes, LEAST_BYTES[error.version])
        if mtu_bytes >= quote.length_bytes:
            return None  # it would have fitted: no router says so
    return OuterError(quote.destination, mtu_bytes, read_ip(error.payload[ICMP_BYTES + quote.transport :], cut=True))


class PathMtus:
    """What was learned, each for LIFETIME_S; ``of`` never says more than the link takes."""

    def __init__(self) -> None:
        self._learned: dict[Address, tuple[float, int]] = {}

    def learn(self, host: Address, mtu_bytes: int, now: float) -> None:
        """A smaller one than is known counts from now; a larger one has to wait until that is forgotten."""
        known = self._learned.pop(host, None)
        if known is not None and known[0] > now:
            mtu_bytes = min(mtu_bytes, known[1])
        elif len(self._learned) >= MOST_HOSTS:
            del self._learned[next(iter(self._learned))]
        self._learned[host] = (now + LIFETIME_S, mtu_bytes)

    def of(self, host: Address, link_bytes: int, now: float) -> int:
        until, mtu_bytes = self._learned.get(host, (0.0, 0))
        return min(link_bytes, mtu_bytes) if until > now else link_bytes

    def known(self, now: float) -> dict[Address, int]:
        """Hosts and the MTUs of their paths; the forgotten go."""
        self._learned = {host: one for host, one in self._learned.items() if one[0] > now}
        return {host: mtu_bytes for host, (_, mtu_bytes) in self._learned.items()}
