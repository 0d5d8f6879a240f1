"""The configuration that the tables are made of: what is wanted, less the backends that are down or disabled.  Pure.

A backend that drains keeps its row, with no weight: it gets no new flows, and those that it has stay.  One that is down
or disabled is left out: the data path gives its flows to others as soon as their entries' backend is gone.
"""

from collections.abc import Collection, Mapping, Set

from lbmux.addresses import Address
from lbmux.backends.overrides import AdminState
from lbmux.config.models import Backend, BackendKey, Config, Service


def effective(
    config: Config,
    down: Set[BackendKey],
    admin_states: Mapping[BackendKey, AdminState],
    cut_off: Collection[Address] = (),
) -> Config:
    """``config``: as ordered (control.orders); ``cut_off``: hosts that do not answer through the tunnel."""
    services = tuple(_service(service, down | at_hosts(service, cut_off), admin_states) for service in config.services)
    return config.model_copy(update={"services": services})


def at_hosts(service: Service, hosts: Collection[Address]) -> Set[BackendKey]:
    """The service's backends there."""
    if not hosts:
        return frozenset()
    return {(service.name, backend.name) for backend in service.backends if backend.tunnel_to in hosts}


def below_watermark(service: Service, down: Set[BackendKey], admin_states: Mapping[BackendKey, AdminState]) -> bool:
    """Whether so few of the backends that are to stay seem healthy that the probes are not believed."""
    if service.health is None or service.health.watermark is None:
        return False
    asked = [b for b in service.backends if admin_states.get((service.name, b.name)) not in ("disable", "leave")]
    healthy = sum((service.name, b.name) not in down for b in asked)
    return healthy < service.health.watermark * len(asked)


def _service(service: Service, down: Set[BackendKey], admin_states: Mapping[BackendKey, AdminState]) -> Service:
    believed = not below_watermark(service, down, admin_states)
    kept: list[Backend] = []
    for backend in service.backends:
        key = service.name, backend.name
        if admin_states.get(key) == "disable" or (believed and key in down):
            continue
        kept.append(backend.model_copy(update={"weight": 0}) if admin_states.get(key) == "drain" else backend)
    return service if tuple(kept) == service.backends else service.model_copy(update={"backends": tuple(kept)})
