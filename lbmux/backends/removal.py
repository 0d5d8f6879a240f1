"""Backends that leave: not wanted any more, and without weight in the tables until their last flow has gone.  Pure.

Existing flows stay as long as their backend lives, whether it was drained or removed.
"""

from collections.abc import Collection, Mapping

from lbmux.backends.overrides import AdminState, Overrides, Removal, with_overrides
from lbmux.config.models import Backend, BackendKey, Config, Service

BY_FILE, BY_COMMAND = "no longer in the configuration", "removed by command"


def settled(
    file: Config,
    overrides: Overrides,
    before: Config,
    admin_states: Mapping[BackendKey, AdminState],
    now: float,
    reason: str,
) -> Overrides:
    """``overrides``, with everybody leaving whom ``before`` had and the new configuration does not want.

    ``admin_states``: before; who was disabled has no flows to stay for.  ``reason``: of those that begin to leave.
    """
    after = {_place(service): service for service in with_overrides(file, overrides.wanted()).services}
    removals: dict[BackendKey, Removal] = {}
    for service in before.services:
        stays, held = after.get(_place(service)), _of(service, overrides)
        if stays is not None:
            gone = [b for b in service.backends if admin_states.get((service.name, b.name)) != "disable"]
            for backend in _without_a_place(gone, stays.backends):
                key = service.name, backend.name
                removals[key] = held.get(backend.name) or Removal(now, backend, reason)
    return Overrides(overrides.of, removals)


def over(
    overrides: Overrides,
    config: Config,
    rows: Collection[BackendKey],
    without_flows: Collection[BackendKey],
    now: float,
) -> set[BackendKey]:
    """Those that need not stay: out of the tables (dead, or not of this host), or without a flow.

    Another mux's flow may come here as long as there is the table before, by which it is found: so long they stay.
    """
    idle_s = {service.name: service.idle_s for service in config.services}
    return {
        key for key, one in overrides.removals.items()
        if key not in rows or (key in without_flows and now - one.since >= idle_s.get(key[0], 0))
    }  # fmt: skip


def without(overrides: Overrides, keys: Collection[BackendKey]) -> Overrides:
    """Less some that have left."""
    return Overrides(overrides.of, {key: one for key, one in overrides.removals.items() if key not in keys})


def _place(service: Service) -> tuple[object, ...]:
    """By which the tables know a service (and people)."""
    return service.name, service.vip, service.protocol, service.port


def _of(service: Service, overrides: Overrides) -> Mapping[str, Removal]:
    return {name: one for (of, name), one in overrides.removals.items() if of == service.name}


def _without_a_place(before: Collection[Backend], after: Collection[Backend]) -> list[Backend]:
    """Backends whose hosts have none of ``after``: two of one service at a host cannot be told apart.

    Where the name has gone to another, the address is the name.
    """
    hosts, names = {backend.tunnel_to for backend in after}, {backend.name for backend in after}
    server_ids, found = {backend.server_id for backend in after}, list[Backend]()
    for backend in before:
        name = f"{backend.dip}:{backend.port}" if backend.name in names else backend.name
        if backend.tunnel_to not in hosts and name not in names:
            server_id = None if backend.server_id in server_ids else backend.server_id
            found.append(backend.model_copy(update={"weight": 0, "name": name, "server_id": server_id}))
            names.add(name)
    return found
