"""Checks between the backends of a service, and between services: families, probes, server IDs, ranges of ports."""

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING

from lbmux.addresses import Address
from lbmux.config.address_loops import Fault
from lbmux.config.field_types import AutoWeight
from lbmux.config.health_models import Health
from lbmux.config.item_faults import repeated
from lbmux.config.traffic_models import Quic
from lbmux.plurals import counted

if TYPE_CHECKING:
    from lbmux.config.models import Backend, Service


def of_list(backends: "dict[int, Backend]", written: int) -> Iterator[Fault]:
    """Yield what is wrong between the backends of a list. ``written``: its length, with the invalid backends."""
    yield from repeated(backends, lambda backend: backend.name, "name", "another backend has the name {}")
    yield from repeated(
        backends,
        lambda backend: backend.tunnel_to,
        None,
        "two backends of one service cannot share a host address ({}): remove `host`",
    )
    if backends and len(backends) == written and not any(backend.weight for backend in backends.values()):
        yield (), "at least one backend should have a weight above 0"


def of_backends(
    backends: "dict[int, Backend]", vip: Address | None, quic: Quic | None, health: Health | None
) -> Iterator[Fault]:
    """Yield what is wrong with the backends in a service with these fields."""
    yield from of_other_families(backends, vip)
    yield from server_ids(backends, quic)
    yield from nothing_to_probe(backends, health)
    yield from auto_weights(backends, health)


def of_other_families(backends: "dict[int, Backend]", vip: Address | None) -> Iterator[Fault]:
    for at, backend in backends.items():
        if vip is not None and backend.dip.version != vip.version:
            yield (at, "dip"), f"is IPv{backend.dip.version}, but the VIP is IPv{vip.version} (only `host` may differ)"


def nothing_to_probe(backends: "dict[int, Backend]", health: Health | None) -> Iterator[Fault]:
    if health is None or health.through == "tunnel":
        return  # probes go to the service's port
    if health.port is None and health.kind not in ("icmp", "command"):
        for at, backend in backends.items():
            if backend.port == 0:
                yield (at, "port"), "is missing: set it or `health.port`, so that there is a port to probe"


def auto_weights(backends: "dict[int, Backend]", health: Health | None) -> Iterator[Fault]:
    """Yield weights that cannot follow the load, and numbers among those that do: 1 would be a hundredth of them."""
    auto = {at for at, backend in backends.items() if isinstance(backend.weight, AutoWeight)}
    if auto and (health is None or health.by != "agent"):
        yield (min(auto), "weight"), "`auto` needs `health: {by: agent}`: agents report the load"
    for at in sorted(backends.keys() - auto if auto else ()):
        if backends[at].weight:
            yield (at, "weight"), "should be `auto` or 0, as another backend has `auto`"


def server_ids(backends: "dict[int, Backend]", quic: Quic | None) -> Iterator[Fault]:
    for at, backend in backends.items():
        if backend.server_id is not None and quic is None:
            yield (at, "server_id"), "does not apply: the service has no `quic`"
        elif backend.server_id is not None and quic is not None and len(backend.server_id) != 2 * quic.id_bytes:
            yield (at, "server_id"), f"should have {counted(quic.id_bytes, 'byte')} (`quic.id_bytes`)"
    named = {at: backend for at, backend in backends.items() if backend.server_id is not None}
    yield from repeated(named, lambda backend: backend.server_id, "server_id", "another backend has {}")


def overlapping_ports(services: "dict[int, Service]") -> Iterator[Fault]:
    """Yield ranges of one VIP and protocol that overlap; `repeated` reports equal first ports."""
    before: dict[Hashable, Service] = {}
    key = lambda at: (str(services[at].vip), services[at].protocol, services[at].port)  # noqa: E731 -- a function of three lines would say no more
    for at in sorted(services, key=key):
        service = services[at]
        last = before.get((service.vip, service.protocol))
        if last is not None and last.port < service.port <= last.ports[-1]:
            yield (at, "port"), f"is in the port range of service {last.name}"
        if last is None or service.ports[-1] > last.ports[-1]:
            before[service.vip, service.protocol] = service
