"""Overrides of the backends of a named pool: an override acts in all services of the pool.  Pure.

Overrides are stored by service. Commands therefore order an override for each service of the pool. A new file may move
a service to a pool; of the overrides of one backend the latest then holds in the whole pool.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from lbmux.backends.overrides import Override
from lbmux.config.models import BackendKey, Config, Service


def members(file: Config, service: str) -> list[str]:
    """Return the names of the services that share the service's pool, or only its own."""
    pool = next((one.pool for one in file.services if one.name == service), None)
    return [service] if pool is None else [one.name for one in file.services if one.pool == pool]


def in_pools(file: Config, keys: Iterable[BackendKey]) -> set[BackendKey]:
    """Return the keys, and for each backend of a pool its keys in the pool's other services."""
    pools, services = {one.name: one.pool for one in file.services}, _services(file)
    wanted = {(pools.get(service), service, backend) for service, backend in keys}
    pooled = {(pool, backend) for pool, _, backend in wanted if pool is not None}
    shared = {(one.name, backend) for pool, backend in pooled for one in services[pool]}
    return shared | {(service, backend) for pool, service, backend in wanted if pool is None}


def origins(file: Config, of: Mapping[BackendKey, Override]) -> dict[BackendKey, BackendKey]:
    """Map each key to the one whose override holds for it: in a pool that of the latest change."""
    pools, services = {one.name: one.pool for one in file.services}, _services(file)
    latest = dict[tuple[str, str], BackendKey]()
    for service, backend in of:
        pool = pools.get(service)
        if pool is None:
            continue
        before = latest.get((pool, backend))
        if before is None or of[before].since < of[service, backend].since:
            latest[pool, backend] = service, backend
    shared = {(one.name, backend): key for (pool, backend), key in latest.items() for one in services[pool]}
    return {key: key for key in of} | shared


def spread(file: Config, of: Mapping[BackendKey, Override]) -> dict[BackendKey, Override]:
    """Return the overrides, the same for one backend in all services of a pool."""
    services = {one.name: one for one in file.services}
    return {
        key: of[key] if key == origin else _at(of[origin], services[origin[0]], services[key[0]])
        for key, origin in origins(file, of).items()
    }


def _at(override: Override, before: Service, service: Service) -> Override:
    """Return another service's override for ``service``: a backend that is added without a port has the service's."""
    added = override.added
    if added is not None and added.port == before.backend_port:
        added = added.model_copy(update={"port": service.backend_port})
    return replace(override, added=added)


def _services(file: Config) -> Mapping[str, list[Service]]:
    """Return the services of each pool."""
    services = defaultdict[str, list[Service]](list)
    for one in file.services:
        if one.pool is not None:
            services[one.pool].append(one)
    return services
