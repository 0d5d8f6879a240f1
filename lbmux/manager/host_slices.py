"""The part of a state that concerns one host: its agent gets no other services and backends.  Pure.

The part is a configuration file too, with a line for each service, so that an agent reads only those that changed
(lbmux.config.known_services). Keys that concern all hosts, such as the addresses of muxes, are in each part.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from ipaddress import ip_address

from pydantic_core import to_json

from lbmux.addresses import Address
from lbmux.config.models import Backend, Config, Service
from lbmux.manager.documents import StoredOverride, StoredOverrides

Placed = tuple[Service, Backend]
Served = dict[Address, dict[str, list[Backend]]]
"""Backends by host and service."""


class HostFiles:
    """A configuration by host; ``lingering``: backends that hosts still serve although the configuration lacks them.

    The files are kept: a change of overrides needs no new ones.  ``before``: those of an earlier configuration; only
    services that differ from its are read again.
    """

    def __init__(
        self, config: Config, lingering: Collection[Placed] = (), before: "HostFiles | None" = None
    ) -> None:  # fmt: skip
        self.config, self.lingering = config, lingering
        self._removed = {(service.name, backend.name) for service, backend in lingering}
        self._services = {service.name: service for service in config.services}
        served, services = ({}, {}) if before is None else before.parts
        self._served: Served = dict(served)
        self._follow(services)
        self._more = [one for one in lingering if self._host(one[0].name, one[1].name) is None]
        self._texts: dict[tuple[tuple[str, ...], frozenset[str]], bytes] = {}

    @property
    def parts(self) -> tuple[Served, Mapping[str, Service]]:
        """What the next configuration's files are made from."""
        return self._served, self._services

    def _follow(self, old: Mapping[str, Service]) -> None:
        """Replace what hosts serve of services that differ from the ``old`` ones."""
        new = self._services
        stale = [one for name, one in old.items() if new.get(name) is not one]
        fresh = [one for name, one in new.items() if old.get(name) is not one]
        for host in {backend.tunnel_to for service in (*stale, *fresh) for backend in service.backends}:
            self._served[host] = dict(self._served.get(host, {}))  # the other one may be in use
        for service in stale:
            for backend in service.backends:
                self._served[backend.tunnel_to].pop(service.name, None)
        for service in fresh:
            for backend in service.backends:
                self._served[backend.tunnel_to].setdefault(service.name, []).append(backend)

    def text(self, hosts: tuple[str, ...], more: frozenset[str]) -> bytes:
        """Return the file for a host with these addresses, in the order of the whole file.

        ``more``: services that it contains even if they have no backend there.
        """
        if (hosts, more) not in self._texts:
            self._texts[hosts, more] = self._text(_addresses(hosts), more)
        return self._texts[hosts, more]

    def host_of(self, one: StoredOverride) -> Address | None:
        """Return the host that an override concerns; None: none.  A backend that lingers is not removed yet."""
        key = one.service, one.backend
        if one.service not in self._services or (key in self._removed and one.admin_state == "remove"):
            return None
        return one.added.tunnel_to if one.added is not None else self._host(*key)

    def _host(self, service: str, backend: str) -> Address | None:
        """Return the host of a backend of the file; None: the file lacks it.  This is asked of few."""
        backends = self._services[service].backends if service in self._services else ()
        return next((one.tunnel_to for one in backends if one.name == backend), None)

    def _text(self, hosts: Collection[Address], more: Iterable[str]) -> bytes:
        backends = defaultdict[str, list[Backend]](list, {name: [] for name in more})
        for host in hosts:
            for name, served in self._served.get(host, {}).items():
                backends[name] += served
        for service, backend in self._more:
            if backend.tunnel_to in hosts and service.name in self._services:
                backends[service.name].append(backend)
        services = [
            service.model_copy(update={"backends": tuple(backends[name]), "pool": None})
            for name, service in self._services.items() if name in backends
        ]  # fmt: skip
        lines = [b"- " + service.model_dump_json().encode() for service in services]
        return b"\n".join([*self._head, b"services:" if lines else b"services: []", *lines, b""])

    @cached_property
    def _head(self) -> list[bytes]:
        """The lines of what concerns all hosts."""
        keys = self.config.model_dump(mode="json", exclude={"services", "pools"})
        return [f"{key}: ".encode() + to_json(value) for key, value in keys.items()]


class HostSlices:
    """One state by host."""

    def __init__(self, files: HostFiles, stored: StoredOverrides) -> None:
        self._files, self._version = files, stored.version
        self._overrides = defaultdict[Address, list[StoredOverride]](list)
        for one in stored.overrides:
            if (host := files.host_of(one)) is not None:
                self._overrides[host].append(one)

    def of(self, hosts: tuple[str, ...]) -> tuple[bytes, StoredOverrides]:
        """Return the file and the overrides for a host with these addresses."""
        overrides = [one for host in _addresses(hosts) for one in self._overrides.get(host, ())]
        services = frozenset(one.service for one in overrides if one.added is not None)
        text = self._files.text(hosts, services)
        return text, StoredOverrides(version=self._version, overrides=tuple(overrides))


@lru_cache(maxsize=4096)
def _addresses(hosts: tuple[str, ...]) -> tuple[Address, ...]:
    """Return the addresses of an agent, which are the same for each state."""
    addresses = list[Address]()
    for host in hosts:
        with suppress(ValueError):
            addresses.append(ip_address(host))
    return tuple(addresses)
