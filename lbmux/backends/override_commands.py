"""An operator's commands about backends, as changes of the overrides.  Pure.

Each command is a function from the file's configuration and the current overrides to the new overrides.  A command for
a backend of a named pool changes its override in all services of the pool.  The models of the configuration validate
the result, as they do for a file.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from lbmux.backends.overrides import OverriddenState, Override, Overrides, with_overrides
from lbmux.backends.pool_overrides import in_pools, members, spread
from lbmux.backends.removal import BY_COMMAND, with_removals
from lbmux.config.field_types import Model, error_message
from lbmux.config.models import Backend, BackendKey, Config, Service
from lbmux.errors import LbmuxError

Checked = TypeVar("Checked", bound=Model)
Change = Callable[[Config, Overrides], tuple[Overrides, list[BackendKey]]]
"""Maps the file's configuration and the current overrides to the new overrides and the backends they affect."""


class UnknownBackendError(LbmuxError):
    """No service, or not the one named ``service``, has a backend of this name."""

    backend: str
    service: str | None

    def __str__(self) -> str:
        where = f"service {self.service} has" if self.service else "there is"
        return f"{where} no backend {self.backend}; `lbmux show health` lists all backends"


class OverrideError(LbmuxError):
    """An override that is invalid: ``what`` is wrong, and the reason."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


def set_admin_state(
    admin_state: OverriddenState | None, backend: str | None, service: str | None, now: float,
    until: float | None = None, deadline: float | None = None,
) -> Change:  # fmt: skip
    """Drain, disable, remove or (None) enable a backend, in one service or in all that have it.

    Without ``backend``, all backends that the service has.  ``until`` and ``deadline`` are those of the override.
    """
    if deadline is not None and admin_state != "drain":
        raise OverrideError("deadline", "only drain has one")
    if admin_state not in (None, *get_args(OverriddenState)):
        raise OverrideError(str(admin_state), f"is not an override; use one of {', '.join(get_args(OverriddenState))}")

    def change(file: Config, overrides: Overrides) -> tuple[Overrides, list[BackendKey]]:
        keys, in_file = _keys_of(file, overrides, backend, service), _keys(file)
        of, removals = dict(overrides.of), dict(overrides.removals)
        for key in keys:
            if key in removals and (admin_state == "disable" or key not in in_file):
                if admin_state == "disable":
                    del removals[key]
            elif admin_state == "remove" and key not in in_file:
                del of[key]
            else:
                _update(of, key, now, admin_state=admin_state, until=until, deadline=deadline)
        return _apply(file, Overrides(overrides.of, removals), Overrides(of, removals), keys, now), keys

    return change


def set_admin_state_of_host(admin_state: OverriddenState | None, host: str, service: str | None, now: float) -> Change:
    """Drain, disable, remove or (None) enable all backends of a host, in one service or in all; ``host``: its address.

    Raise OverrideError if there are none.
    """

    def change(file: Config, overrides: Overrides) -> tuple[Overrides, list[BackendKey]]:
        with_added = with_overrides(file, overrides.without_removals()).services
        keys = sorted(
            {
                (one.name, backend.name)
                for one in (*file.services, *with_added)
                if service in (None, one.name)
                for backend in one.backends
                if str(backend.tunnel_to) == host
            }
        )
        if not keys:
            raise OverrideError(f"host {host}", "no backend is on it; `lbmux show backends` lists the hosts")
        done = set[BackendKey]()
        for name, backend_name in keys:
            if (name, backend_name) not in done:
                overrides, more = set_admin_state(admin_state, backend_name, name, now)(file, overrides)
                done.update(more)
        return overrides, sorted(done)

    return change


def set_weight(weight: int | None, backend: str, service: str | None, now: float) -> Change:
    """Override a backend's weight, or (None) return to the file's."""
    if weight is not None:
        _validate(Backend, {"dip": "192.0.2.1", "weight": weight}, backend)  # any DIP works: this validates the weight

    def change(file: Config, overrides: Overrides) -> tuple[Overrides, list[BackendKey]]:
        keys, of = _keys_of(file, overrides.without_removals(), backend, service), dict(overrides.of)
        for key in keys:
            _update(of, key, now, weight=weight)
        return _apply(file, overrides, Overrides(of, overrides.removals), keys, now), keys

    return change


def add(service: str, fields: Mapping[str, Any], now: float) -> Change:
    """Add a backend; ``fields`` has the fields that it would have in the file."""

    def change(file: Config, overrides: Overrides) -> tuple[Overrides, list[BackendKey]]:
        wanted = {one.name: one for one in with_overrides(file, overrides.without_removals()).services}
        if service not in wanted:
            raise OverrideError(service, "there is no such service; `lbmux show services` lists all services")
        added = _added([wanted[name] for name in members(file, service)], fields)
        if removed := added.keys() & _keys(file):
            raise OverrideError(min(removed)[1], "was removed by command; `lbmux enable` brings it back")
        of = {**overrides.of, **{key: Override(now, added=backend) for key, backend in added.items()}}
        after = Overrides(of, overrides.removals)
        _check(with_overrides(file, after.without_removals()), {name for name, _ in added})
        return _apply(file, overrides, after, list(added), now), list(added)

    return change


def _added(services: Sequence[Service], fields: Mapping[str, Any]) -> dict[BackendKey, Backend]:
    """Return the backend with these fields for each of the services, which are those of a pool if there are several."""
    _service(services[0], fields)
    if services[0].pool is not None:
        fields = {**fields, "name": Backend.model_validate(dict(fields)).in_pool().name}
    backends = [(one.name, _service(one, fields).backends[-1]) for one in services]
    return {(name, backend.name): backend for name, backend in backends}


def without_obsolete(file: Config, overrides: Overrides) -> Overrides:
    """Drop overrides that a new file makes obsolete or invalid, and have the others act in all services of a pool.

    An addition is obsolete if the file has the backend; a removal is obsolete if the file lacks it.
    """
    in_file, services, of = _keys(file), {service.name for service in file.services}, dict[BackendKey, Override]()
    for key, override in spread(file, overrides.of).items():
        if override.admin_state == "remove" and key not in in_file:
            override = replace(override, admin_state=None)
        if override.added is not None and (key in in_file or key[0] not in services):
            override = replace(override, added=None)
        elif override.added is not None:
            try:
                _check(with_overrides(file, Overrides({**of, key: override})), {key[0]})
            except OverrideError:
                override = replace(override, added=None)
        if override.is_set:
            of[key] = override
    return Overrides(of, overrides.removals)


def _apply(file: Config, before: Overrides, after: Overrides, keys: Collection[BackendKey], now: float) -> Overrides:
    """Check the changed services by themselves: what spans services concerns only backends that are added."""
    changed = {service for service, _ in keys}
    for service in with_overrides(file, after.without_removals()).services:
        if service.name in changed:
            _service(service)
    return with_removals(file, after, with_overrides(file, before), before.admin_states, now, BY_COMMAND)


def _update(of: dict[BackendKey, Override], key: BackendKey, now: float, **what: Any) -> None:
    before = of.get(key, Override(now))
    after = replace(before, **what)
    if not after.is_set:
        of.pop(key, None)
    elif after != before:
        of[key] = replace(after, since=now)


def _keys(config: Config) -> set[BackendKey]:
    return {(service.name, backend.name) for service in config.services for backend in service.backends}


def _keys_of(file: Config, overrides: Overrides, backend: str | None, service: str | None) -> list[BackendKey]:
    """Return the keys of all backends of this name, in the file or added by command; raise UnknownBackendError.

    Without ``backend``, all backends of the service; raise OverrideError if there is none.
    """
    wanted = with_overrides(file, overrides).services
    both = (*file.services, *(new for old, new in zip(file.services, wanted, strict=True) if new is not old))
    if backend is None:
        if matches := {(one.name, known.name) for one in both if one.name == service for known in one.backends}:
            return sorted(in_pools(file, matches))
        raise OverrideError(str(service), "there is no such service with backends; see `lbmux show services`")
    services = both if service is None else [one for one in both if one.name == service]
    keys = {(one.name, backend) for one in services for known in one.backends if known.name == backend}
    if not keys:
        raise UnknownBackendError(backend, service)
    return sorted(in_pools(file, keys))


def _check(config: Config, changed: Collection[str]) -> None:
    """Raise OverrideError if a file with this configuration would be invalid; only the services ``changed`` are new."""
    services = tuple(_service(s) if s.name in changed else _without_pool(s) for s in config.services)
    _validate(Config, dict(config) | {"services": services, "pools": {}}, ", ".join(sorted(changed)))


def _without_pool(service: Service) -> Service:
    return service if service.pool is None else service.model_copy(update={"pool": None})


def _service(service: Service, *more: Mapping[str, Any]) -> Service:
    backends = (*service.backends, *more)
    values = dict(service) | {"port": service.port or "any", "pool": None, "backends": backends}
    return _validate(Service, values, service.name)


def _validate(model: type[Checked], values: Mapping[str, Any], what: str) -> Checked:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = next((str(step) for step in reversed(first["loc"]) if isinstance(step, str)), "")
        raise OverrideError(what, f"{field}: {error_message(first, model)}") from error
