"""Divides the capacity of a mux between its VIPs: max-min fairness by weight (Bertsekas and Gallager, Data Networks,
section 6.5.2).  Pure.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from lbmux.addresses import Address
from lbmux.config.models import Config

LEAST = 1 / 64
"""At least this share of packets is admitted: what is dropped is estimated from what is admitted."""
Key = TypeVar("Key")


class Admitted(NamedTuple):
    """Which shares of a VIP's new flows and of its other packets are admitted, each from LEAST to 1."""

    new: float = 1.0
    others: float = 1.0


def fair_shares(demands: Mapping[Key, float], weights: Mapping[Key, float], capacity: float) -> dict[Key, float]:
    """Return what each may have: its demand, or if that is not possible, its weight's share of what others leave."""
    shares, left, open_keys = dict[Key, float](), max(capacity, 0.0), set(demands)
    while open_keys:
        level = left / sum(weights[key] for key in open_keys)
        content = {key for key in open_keys if demands[key] <= level * weights[key]}
        if not content:
            return shares | {key: level * weights[key] for key in open_keys}
        shares |= {key: demands[key] for key in content}
        left = max(left - sum(demands[key] for key in content), 0.0)
        open_keys -= content
    return shares


def admitted(new: float, others: float, share: float) -> Admitted:
    """Return what a VIP is admitted that gets these packets a second and may have ``share``: its new flows go first."""
    excess = new + others - share
    if excess <= 0:
        return Admitted()
    if excess <= new * (1 - LEAST):
        return Admitted(1 - excess / new, 1.0)
    left = share - new * LEAST
    return Admitted(LEAST, min(max(left / others, LEAST), 1.0)) if others > 0 else Admitted(LEAST)


def weights_of(config: Config) -> dict[Address, int]:
    """Return each VIP's weight: the largest of its services."""
    weights = dict[Address, int]()
    for service in config.services:
        weights[service.vip] = max(service.share, weights.get(service.vip, 0))
    return weights
