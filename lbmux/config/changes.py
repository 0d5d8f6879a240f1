"""Describes the differences between two configurations, for the answer to a reload and for the log."""

from collections.abc import Iterator, Sequence

from lbmux.config.models import Backend, Config, Service

SETTINGS = tuple(name for name in Config.model_fields if name not in ("services", "pools"))
SERVICE_FIELDS = tuple(name for name in Service.model_fields if name not in ("name", "backends"))


def changes(old: Config, new: Config) -> list[str]:
    """Return one line per difference; an empty list if both mean the same."""
    return [*_settings(old, new), *_pools(old, new), *_services(old, new)]


def _settings(old: Config, new: Config) -> Iterator[str]:
    for name in SETTINGS:
        if getattr(old, name) != getattr(new, name):
            yield f"{name}: changed"


def _pools(old: Config, new: Config) -> Iterator[str]:
    yield from (f"pool {name}: removed" for name in old.pools if name not in new.pools)
    yield from (f"pool {name}: added" for name in new.pools if name not in old.pools)
    for name, before in old.pools.items():
        yield from (f"pool {name}: {change}" for change in _backends(before, new.pools.get(name, before)))


def _services(old: Config, new: Config) -> Iterator[str]:
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    yield from (f"service {name}: removed" for name in before if name not in after)
    yield from (f"service {name}: added" for name in after if name not in before)
    for name in before:
        if name in after and after[name] is not before[name]:  # the same object in most of a large file
            yield from (f"service {name}: {change}" for change in _service(before[name], after[name]))


def _service(old: Service, new: Service) -> Iterator[str]:
    for field in SERVICE_FIELDS:
        if getattr(old, field) != getattr(new, field):
            yield f"{field} changed"
    if old.pool is None or old.pool != new.pool:  # else the pool's own lines say it
        yield from _backends(old.backends, new.backends)


def _backends(old: Sequence[Backend], new: Sequence[Backend]) -> Iterator[str]:
    before = {backend.name: backend for backend in old}
    after = {backend.name: backend for backend in new}
    yield from (f"backend {name} removed" for name in before if name not in after)
    yield from (f"backend {name} added" for name in after if name not in before)
    yield from (f"backend {name} changed" for name in before if after.get(name, before[name]) != before[name])
