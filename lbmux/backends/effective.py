"""The effective configuration: the one from which tables are built, without backends that are down or disabled.  Pure.

A draining backend keeps its row with weight 0: it gets no new flows and keeps its existing ones.  A backend that is
down or disabled has no row: the data path moves its flows to other backends.
"""

from collections.abc import Collection, Mapping, Set
from types import MappingProxyType

from lbmux.addresses import Address
from lbmux.backends.overrides import AdminState
from lbmux.config.field_types import AutoWeight
from lbmux.config.models import Backend, BackendKey, Config, Service


def effective(
    config: Config,
    down: Set[BackendKey],
    admin_states: Mapping[BackendKey, AdminState],
    cut_off: Collection[Address] = (),
    kept: Collection[str] = (),
    weights: Mapping[BackendKey, int] = MappingProxyType({}),
) -> Config:
    """Return ``config``, which includes overrides, without backends that get no traffic.

    ``cut_off``: hosts that do not answer through the tunnel.  ``kept``: services that keep all backends, whatever
    probes say (`below_watermarks`).  ``weights``: of backends with `weight: auto`.
    """
    concerned = {name for name, _ in (*down, *admin_states)}
    services = tuple(
        _service(one, frozenset() if one.name in kept else down | on_hosts(one, cut_off), admin_states)
        if cut_off or one.name in concerned else one
        for one in with_auto_weights(config, weights).services
    )  # fmt: skip
    return config.model_copy(update={"services": services})


def with_auto_weights(config: Config, weights: Mapping[BackendKey, int]) -> Config:
    """Return ``config`` with these weights in place of `weight: auto`; without one, a backend keeps the first value."""
    if not weights:
        return config
    services = tuple(_weighted(service, weights) for service in config.services)
    return config.model_copy(update={"services": services})


def _weighted(service: Service, weights: Mapping[BackendKey, int]) -> Service:
    if not any(isinstance(backend.weight, AutoWeight) for backend in service.backends):
        return service
    backends = tuple(
        one.model_copy(update={"weight": weights[service.name, one.name]})
        if isinstance(one.weight, AutoWeight) and (service.name, one.name) in weights else one
        for one in service.backends
    )  # fmt: skip
    return service.model_copy(update={"backends": backends})


def on_hosts(service: Service, hosts: Collection[Address]) -> Set[BackendKey]:
    """Return the service's backends on these hosts."""
    if not hosts:
        return frozenset()
    return {(service.name, backend.name) for backend in service.backends if backend.tunnel_to in hosts}


def below_watermarks(
    config: Config,
    down: Set[BackendKey],
    admin_states: Mapping[BackendKey, AdminState],
    cut_off: Collection[Address] = (),
    before: Collection[str] = (),
    by_pool: Collection[str] | None = None,
) -> frozenset[str]:
    """Return the services that ignore probe results because too few backends are healthy.

    ``before``: the result in force so far.  A service in it stays in it until its high watermark.  ``by_pool``: those
    that the pool's primary found below it, among the services whose agents report their health; None: decide all here.
    """

    def is_below(one: Service) -> bool:
        if by_pool is not None and one.health is not None and one.health.by == "agent":
            return one.name in by_pool
        return below_watermark(one, down | on_hosts(one, cut_off), admin_states, one.name in before)

    return frozenset(one.name for one in config.services if is_below(one))


def below_watermark(
    service: Service, down: Set[BackendKey], admin_states: Mapping[BackendKey, AdminState], was_below: bool = False
) -> bool:
    """Return whether the share of healthy backends is below the low watermark, or, if it ``was_below``, the high one.

    Disabled backends and backends that are being removed do not count.
    """
    if service.health is None or service.health.watermark is None:
        return False
    counted = [b for b in service.backends if admin_states.get((service.name, b.name)) not in ("disable", "removing")]
    healthy = sum((service.name, b.name) not in down for b in counted)
    watermark = service.health.watermark
    return healthy < (watermark.high if was_below else watermark.low) * len(counted)


def _service(service: Service, down: Set[BackendKey], admin_states: Mapping[BackendKey, AdminState]) -> Service:
    remaining: list[Backend] = []
    for backend in service.backends:
        key = service.name, backend.name
        if admin_states.get(key) == "disable" or key in down:
            continue
        remaining.append(backend.model_copy(update={"weight": 0}) if admin_states.get(key) == "drain" else backend)
    backends = tuple(remaining)
    return service if backends == service.backends else service.model_copy(update={"backends": backends})
