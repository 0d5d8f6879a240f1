"""Named pools of backends (`pools` in the file): the backends that the services with `pool: NAME` share.  Pure.

Services that take the same port share one tuple of backends, so a pool of 64 costs no more memory with 1000 services
than with one.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from lbmux.config.address_loops import Fault
from lbmux.config.service_checks import of_backends

if TYPE_CHECKING:
    from lbmux.config.models import Backend, Service

Pools = Mapping[str, "tuple[Backend, ...]"]


def with_pools(services: "Mapping[int, Service]", pools: Pools) -> "tuple[dict[int, Service], list[Fault]]":
    """Return the services with the backends of their pools, and what is wrong with these; both by the service's index.

    A backend without a port gets the service's.
    """
    filled, faults = dict(services), list[Fault]()
    known = dict[tuple[str, int], "tuple[Backend, ...]"]()
    checked = dict[tuple[object, ...], list[Fault]]()
    for at, service in services.items():
        if service.pool is None:
            continue
        if service.pool not in pools:
            faults.append(((at, "pool"), _no_pool(service.pool, pools)))
            continue
        port = service.backend_port
        if (service.pool, port) not in known:
            known[service.pool, port] = tuple(backend.filled(port) for backend in pools[service.pool])
        backends = known[service.pool, port]
        filled[at] = service.model_copy(update={"backends": backends})
        key = service.pool, port, service.vip.version, service.quic, service.health
        if key not in checked:
            checked[key] = list(of_backends(dict(enumerate(backends)), service.vip, service.quic, service.health))
        faults += [((at, "backends", *where), why) for where, why in checked[key]]
    return filled, faults


def _no_pool(name: str, pools: Pools) -> str:
    close = get_close_matches(name, pools, 1)
    return f"there is no pool {name}" + (f": did you mean {close[0]}?" if close else "")


def at_pools(faults: "list[Fault]", services: "Mapping[int, Service]") -> Iterator[Fault]:
    """Move faults of backends that come from a pool to the service's `pool`, since it lists no backends."""
    for where, why in faults:
        match where:
            case (int(at), "backends", *below) if at in services and services[at].pool is not None:
                yield (at, "pool"), _in_pool(services[at], below, why)
            case _:
                yield where, why


def _in_pool(service: "Service", where: list[int | str], why: str) -> str:
    match where:
        case [int(number), *field]:
            named = "".join(f" `{step}`" for step in field)
            return f"backend {service.backends[number].name}:{named} {why}"
    return why
