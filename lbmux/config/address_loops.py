"""Checks across services for addresses that would send packets round in circles.  Pure.

A VIP belongs to no machine: where it is also a backend's or a mux's address, its tunnel ends at the muxes again.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from lbmux.addresses import Address

if TYPE_CHECKING:
    from lbmux.config.models import Backend, Service

Fault = tuple[tuple[int | str, ...], str]
"""Where below the field, and what is wrong there."""


def loops(muxes: Collection[Address], services: Mapping[int, "Service"]) -> Iterator[Fault]:
    """Where below `services` (by place in the file) an address must not stand, and why."""
    owners = dict[Address, str]()
    for service in services.values():
        owners.setdefault(service.vip, service.name)
    for at, service in services.items():
        if service.vip in muxes:
            yield (at, "vip"), "is the address of a mux (`muxes`): a VIP belongs to no machine"
        for number, backend in enumerate(service.backends):
            for field, address in _ends(backend):
                if address == service.vip:
                    yield (at, "backends", number, field), "is the service's own VIP: packets would go round in circles"
                elif address in owners:
                    why = f"is the VIP of service {owners[address]}: packets would go back to the muxes"
                    yield (at, "backends", number, field), why


def _ends(backend: "Backend") -> Iterator[tuple[str, Address]]:
    yield "dip", backend.dip
    if backend.host is not None:
        yield "host", backend.host
