"""Selects what an edge announces: the services of its host, and their VIPs."""

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from lbmux.addresses import Address
from lbmux.backends.overrides import AdminState
from lbmux.bgp.bgp_settings import Prefix
from lbmux.config.health_models import Health
from lbmux.config.models import BackendKey, Config, Service
from lbmux.linux.sock_diag import Connections


def services_of_host(config: Config, own: Collection[Address]) -> Config:
    """Return the services with backends on this host, with only those backends, probed by the host itself.

    The watermark is dropped: it is a share of all backends, and an edge knows only its own.  Probes go direct: there is
    no mux whose tunnel they could test.
    """
    services = []
    for service in probed_directly(config).services:
        if backends := tuple(backend for backend in service.backends if backend.dip in own):
            health = service.health and service.health.model_copy(update={"watermark": None, "by": "mux"})
            services.append(service.model_copy(update={"backends": backends, "health": health}))
    return config.model_copy(update={"services": tuple(services)})


def probed_directly(config: Config) -> Config:
    """Return the configuration with no probe through the tunnel, which is not for a host that has the VIP itself."""
    services = tuple(service.model_copy(update={"health": _direct(service.health)}) for service in config.services)
    return config.model_copy(update={"services": services})


def _direct(health: Health | None) -> Health | None:
    """A port set for probes through the tunnel is the VIP's, not the one on which the backend listens."""
    if health is None or health.through == "direct":
        return health
    return health.model_copy(update={"through": "direct", "port": None})


def served_vips(
    config: Config, healthy: Collection[BackendKey], admin_states: Mapping[BackendKey, AdminState]
) -> frozenset[Prefix]:
    """Return the VIPs whose services all have a healthy backend without an override: routers ignore ports."""
    serving: dict[Prefix, bool] = {}
    for service in config.services:
        keys = [(service.name, backend.name) for backend in service.backends if backend.weight]
        serves = any((key in healthy or service.health is None) and key not in admin_states for key in keys)
        prefix = ip_network(service.vip)
        serving[prefix] = serving.get(prefix, True) and serves
    return frozenset(prefix for prefix, serves in serving.items() if serves)


@dataclass(frozen=True)
class EdgeSnapshot:
    """The state in force at an edge, for the drain watch."""

    services: tuple[Service, ...]
    connections: Connections

    @property
    def rows(self) -> set[BackendKey]:
        return {(service.name, backend.name) for service in self.services for backend in service.backends}


def without_connections(snapshot: EdgeSnapshot, candidates: Collection[BackendKey]) -> set[BackendKey]:
    """Return the backends of ``candidates`` whose service has no connection on this host; UDP services never have one.

    While the kernel cannot list its sockets no TCP backend counts as drained.
    """
    results = set[BackendKey]()
    for service in snapshot.services:
        if keys := {(service.name, backend.name) for backend in service.backends} & set(candidates):
            with contextlib.suppress(OSError):
                if service.protocol == "udp" or not snapshot.connections.any(service.vip, service.ports):
                    results |= keys
    return results
