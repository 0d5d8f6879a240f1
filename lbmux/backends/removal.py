"""Removal of backends: a removed backend stays in the tables with weight 0 until its last flow ends.  Pure."""

from collections.abc import Collection, Mapping

from lbmux.backends.overrides import AdminState, Overrides, Removal, with_overrides
from lbmux.config.models import Backend, BackendKey, Config, Service

BY_FILE, BY_COMMAND = "no longer in the configuration", "removed by command"


def with_removals(
    file: Config,
    overrides: Overrides,
    before: Config,
    admin_states: Mapping[BackendKey, AdminState],
    now: float,
    reason: str,
) -> Overrides:
    """Return ``overrides`` with a removal for each backend of ``before`` that the new configuration lacks.

    ``admin_states`` are those before the change: a backend that was disabled has no flows, so it is gone at once.
    ``reason``: why new removals start.
    """
    now_wanted = with_overrides(file, overrides.without_removals()).services
    same = {id(one) for one in before.services} & {id(one) for one in now_wanted}  # same file: most of a large pool
    after = {_key(one): one for one in now_wanted if id(one) not in same}
    removals: dict[BackendKey, Removal] = {}
    for service in (one for one in before.services if id(one) not in same):
        new = after.get(_key(service))
        if new is not None and new.backends is not service.backends:
            earlier = _removals_of(service, overrides)
            enabled = [b for b in service.backends if admin_states.get((service.name, b.name)) != "disable"]
            for backend in _removed(enabled, new.backends):
                key = service.name, backend.name
                removals[key] = earlier.get(backend.name) or Removal(now, backend, reason)
    return Overrides(overrides.of, removals)


def with_ending_services(new: Config, before: Config) -> Config:
    """Return ``new`` with the services that it lacks and whose backends may have flows, without backends.

    An agent needs them: its manager sends it only services that have backends on its host. A service that others have
    taken the VIP and a port of ends at once.
    """
    names = {service.name for service in new.services}
    ending = [
        service.model_copy(update={"backends": ()})
        for service in before.services
        if service.backends and service.name not in names and not any(_overlap(service, one) for one in new.services)
    ]
    return new.model_copy(update={"services": (*new.services, *ending)}) if ending else new


def _overlap(one: Service, other: Service) -> bool:
    if (one.vip, one.protocol) != (other.vip, other.protocol):
        return False
    is_any = 0 in (one.port, other.port)
    return is_any or (one.ports.start < other.ports.stop and other.ports.start < one.ports.stop)


def finished(
    overrides: Overrides,
    config: Config,
    rows: Collection[BackendKey],
    without_flows: Collection[BackendKey],
    empty: Collection[BackendKey],
    now: float,
) -> set[BackendKey]:
    """Return the backends whose removal can end: they are not in the tables, or have no flow.

    A backend is not in the tables if it is down or, at an agent, on another host.  A backend without flows stays for
    one idle timeout, since another mux's flow may arrive here and is found through the former table; one that is
    ``empty``, as its host says, has no flow at any mux.
    """
    idle_s = {service.name: service.idle_s for service in config.services}
    return {
        key for key, one in overrides.removals.items()
        if key not in rows or (key in without_flows and (key in empty or now - one.since >= idle_s.get(key[0], 0)))
    }  # fmt: skip


def without(overrides: Overrides, keys: Collection[BackendKey]) -> Overrides:
    """Return ``overrides`` without the removals of ``keys``."""
    return Overrides(overrides.of, {key: one for key, one in overrides.removals.items() if key not in keys})


def _key(service: Service) -> tuple[object, ...]:
    """Return what identifies a service in the tables, and its name."""
    return service.name, service.vip, service.protocol, service.port


def _removals_of(service: Service, overrides: Overrides) -> Mapping[str, Removal]:
    return {name: one for (of, name), one in overrides.removals.items() if of == service.name}


def _removed(before: Collection[Backend], after: Collection[Backend]) -> list[Backend]:
    """Return the backends of ``before`` whose host has none of ``after``, with weight 0.

    A service has at most one backend per host.  If another backend now has the name, the address becomes the name.
    """
    hosts, names = {backend.tunnel_to for backend in after}, {backend.name for backend in after}
    server_ids, backends = {backend.server_id for backend in after}, list[Backend]()
    for backend in before:
        name = f"{backend.dip}:{backend.port}" if backend.name in names else backend.name
        if backend.tunnel_to not in hosts and name not in names:
            server_id = None if backend.server_id in server_ids else backend.server_id
            backends.append(backend.model_copy(update={"weight": 0, "name": name, "server_id": server_id}))
            names.add(name)
    return backends
