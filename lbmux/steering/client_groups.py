"""Groups clients' round-trip times by prefix, so that a report identifies no client. Pure.

Clients are grouped by /24 (IPv4) and /56 (IPv6), as resolvers report client subnets (RFC 7871, section 11.1). A group
with fewer than 50 connections counts in the prefix around it, and so on; what remains at the end is not reported.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.steering.measurements import Floats, Network

LEAST = 50
"""Number of connections of a group that is reported."""
LENGTHS = {4: (24, 20, 16, 12, 8, 0), 6: (56, 48, 40, 32, 24, 0)}
MAPPED = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)
"""The prefix of an IPv4-mapped address."""
WIDTH_95 = 0.98
"""Half of the 95 % interval of a median, in units of the square root of the number of samples (1.96 / 2)."""


@dataclass(frozen=True)
class RoundTripTimes:
    """``rtt_ms``: the median; ``low_ms`` to ``high_ms``: its 95 % interval, by order statistics."""

    prefix: Network
    rtt_ms: float
    low_ms: float
    high_ms: float
    samples: int


def by_prefix(clients: NDArray[Any], rtt_ms: Floats) -> list[RoundTripTimes]:
    """Group round-trip times. ``clients``: their addresses as pairs (lbmux.addresses), shape (connections, 2)."""
    octets = np.ascontiguousarray(clients).view(np.uint8).reshape(-1, 16)
    is_mapped = (octets[:, : len(MAPPED)] == MAPPED).all(axis=1)
    of_ipv4 = [*_grouped(octets[is_mapped][:, len(MAPPED) :], rtt_ms[is_mapped], 4)]
    return [*of_ipv4, *_grouped(octets[~is_mapped], rtt_ms[~is_mapped], 6)]


def _grouped(octets: NDArray[np.uint8], rtt_ms: Floats, family: int) -> Iterator[RoundTripTimes]:
    make = IPv4Network if family == 4 else IPv6Network
    for length in LENGTHS[family]:
        mask = np.packbits(np.arange(8 * octets.shape[1]) < length)
        prefixes, group, counts = np.unique(octets & mask, axis=0, return_inverse=True, return_counts=True)
        for at in np.flatnonzero(counts >= LEAST):
            yield _summary(make((prefixes[at].tobytes(), length)), np.sort(rtt_ms[group.ravel() == at]))
        is_small = (counts < LEAST)[group.ravel()]
        octets, rtt_ms = octets[is_small], rtt_ms[is_small]


def _summary(prefix: Network, rtt_ms: Floats) -> RoundTripTimes:
    count = len(rtt_ms)
    aside = WIDTH_95 * count**0.5
    low, high = max(0, int(count / 2 - aside)), min(count - 1, int(count / 2 + aside))
    return RoundTripTimes(prefix, float(np.median(rtt_ms)), float(rtt_ms[low]), float(rtt_ms[high]), count)
