"""The part of a state that concerns one host: its agent gets no other services and backends.  Pure.

The part is a configuration file too, in JSON, which YAML includes. What concerns all hosts, such as the addresses of
muxes, is in each part.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable

from lbmux.config.models import Backend, BackendKey, Config, Service
from lbmux.manager.documents import StoredOverride, StoredOverrides

Placed = tuple[Service, Backend]


class HostSlices:
    """One state by host; ``lingering``: backends that hosts still serve although the state lacks them."""

    def __init__(self, config: Config, stored: StoredOverrides, lingering: Collection[Placed] = ()) -> None:
        self._config, self._stored = config, stored
        self._services = {service.name: service for service in config.services}
        self._served = defaultdict[str, dict[str, list[Backend]]](lambda: defaultdict(list))
        """Backends by host and service."""
        self._lingering = {(service.name, backend.name) for service, backend in lingering}
        placed = [(service, backend) for service in config.services for backend in service.backends]
        in_file = {(service.name, backend.name) for service, backend in placed}
        absent = [(service, backend) for service, backend in lingering if (service.name, backend.name) not in in_file]
        for service, backend in (*placed, *absent):
            self._served[str(backend.tunnel_to)][service.name].append(backend)
        self._overrides = defaultdict[str, list[StoredOverride]](list)
        hosts = {(service.name, backend.name): str(backend.tunnel_to) for service, backend in placed}
        for one in stored.overrides:
            backend_host = str(one.added.tunnel_to) if one.added is not None else hosts.get((one.service, one.backend))
            if backend_host is not None and self._applies((one.service, one.backend), one):
                self._overrides[backend_host].append(one)

    def of(self, hosts: Iterable[str]) -> tuple[bytes, StoredOverrides]:
        """Return the file and the overrides for a host with these addresses, in the order of the whole file."""
        backends, overrides = defaultdict[str, list[Backend]](list), list[StoredOverride]()
        for host in hosts:
            for name, served in self._served.get(host, {}).items():
                backends[name] += served
            overrides += self._overrides.get(host, [])
            for one in self._overrides.get(host, []):
                backends[one.service] += []  # an addition needs its service
        services = tuple(
            service.model_copy(update={"backends": tuple(backends[name])})
            for name, service in self._services.items() if name in backends
        )  # fmt: skip
        text = self._config.model_copy(update={"services": services}).model_dump_json()
        return text.encode(), StoredOverrides(version=self._stored.version, overrides=tuple(overrides))

    def _applies(self, key: BackendKey, one: StoredOverride) -> bool:
        """Return whether an override concerns what is sent: a backend that lingers is not removed yet."""
        return one.service in self._services and not (key in self._lingering and one.admin_state == "remove")
