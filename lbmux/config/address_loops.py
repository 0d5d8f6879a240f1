"""Checks across services for addresses that would make packets loop.  Pure.

A VIP must not be a machine's own address: a tunnel to a backend or mux that has a VIP as its address leads back to the
muxes.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from lbmux.addresses import Address

if TYPE_CHECKING:
    from lbmux.config.models import Backend, Service

Fault = tuple[tuple[int | str, ...], str]
"""The location below the field, and what is wrong there."""


def find_loops(muxes: Collection[Address], services: Mapping[int, "Service"]) -> Iterator[Fault]:
    """Yield each address that would make packets loop; `services` maps the index in the file to the service."""
    owners = dict[bytes, str]()
    """The packed address, whose hash is quick, to the service of the VIP."""
    for service in services.values():
        owners.setdefault(service.vip.packed, service.name)
    for at, service in services.items():
        if service.vip in muxes:
            yield (at, "vip"), "is the address of a mux (see `muxes`); a VIP must not be a machine's own address"
        for number, backend in enumerate(service.backends):
            if backend.host is None and backend.dip.packed not in owners:  # true for nearly all of thousands
                continue
            for field, address in _addresses(backend):
                if address == service.vip:
                    yield (at, "backends", number, field), "is the service's own VIP: packets would loop"
                elif address.packed in owners:
                    why = f"is the VIP of service {owners[address.packed]}: packets would loop back to the muxes"
                    yield (at, "backends", number, field), why


def _addresses(backend: "Backend") -> Iterator[tuple[str, Address]]:
    yield "dip", backend.dip
    if backend.host is not None:
        yield "host", backend.host
