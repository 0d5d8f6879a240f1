"""Writes a host agent's tables from a configuration: the backends on this host, and the muxes that it accepts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, port_to_wire, to_pair
from lbmux.config.models import Backend, Config, Service, kind_of
from lbmux.datapath.encapsulate import overhead_bytes_of
from lbmux.datapath.tables import (
    DIP,
    ENDPOINT,
    ENTROPY_MUX,
    GONE,
    LOCAL,
    MUX,
    NAT,
    NONE,
    SOURCE,
    TUNNEL_ADDRESS,
    UP,
    VIP,
    WAYS,
    Sizes,
)
from lbmux.tables.address_map import Name, fill
from lbmux.tables.host_probes import probe_services
from lbmux.tables.mux_rows import ETHERNET_MTU, PROTOCOLS, TUNNEL_KINDS, ticks
from lbmux.tables.mux_tables import power_of_two
from lbmux.tables.row_identities import assign, identity
from lbmux.tables.table_limits import with_limit_after_restart
from lbmux.targets.regions import Tables
from lbmux.wire.header_layouts import IPV4_BYTES, IPV6_BYTES, TCP_BYTES

ENDPOINTS = 2048
"""One for each service, one for the probes of each VIP (host_probes.MOST_VIPS), one for direct connections to a DIP."""
NAMES = 32768
"""Over four times the largest number of addresses of a configuration: a VIP for each service, a DIP with and without
its port, and the muxes."""


def sizes_for(config: Config, workers: int = 1) -> Sizes:
    """Return the sizes of a host's tables: few endpoints, no Maglev table, flows for the connections of one host."""
    flows = min(config.flows.limit, 1 << 18)
    return Sizes(
        addresses=max(NAMES, power_of_two(8 * sum(len(service.ports) for service in config.services))),
        slots=16,
        services=ENDPOINTS,  # an agent's rows here are owners, at most as many as endpoints
        backends=ENDPOINTS,
        buckets=power_of_two(-(-2 * flows // WAYS)),
        endpoints=ENDPOINTS,
        workers=workers,
    )


def ports_of(service: Service, backend: Backend) -> Iterable[int]:
    """Return the ports that the backend replies from: its own, or else the service's."""
    return (backend.port,) if backend.port else service.ports


def advmss(config: Config) -> dict[int, int]:
    """Return by IP version the TCP payload that fits an Ethernet frame with the largest tunnel header in use."""
    overhead_bytes = max(
        (
            overhead_bytes_of(TUNNEL_KINDS.index(kind_of(config, service, backend)), backend.tunnel_to.version == 6)
            for service in config.services
            for backend in service.backends
        ),
        default=0,
    )
    return {
        4: ETHERNET_MTU - overhead_bytes - IPV4_BYTES - TCP_BYTES,
        6: ETHERNET_MTU - overhead_bytes - IPV6_BYTES - TCP_BYTES,
    }


DIRECT = identity("direct")
"""The identity of the endpoint for connections that clients open to a DIP itself, without translation."""


class Source(NamedTuple):
    """The source of a backend's replies. Port 0 means any port."""

    protocol: int
    dip: Address
    port: int


class Owned(NamedTuple):
    """A source's number in the flow table, and the endpoints through which its connections may come."""

    owner: int
    endpoints: tuple[int, ...]


@dataclass
class Plan:
    """The contents that ``commit`` copies into the tables."""

    config: Config
    names: NDArray[Any]
    salt: int
    endpoints: dict[int, tuple[int, NDArray[Any]]]  # row: (identity, contents)
    owners: dict[int, int]  # row: identity
    served: tuple[tuple[Service, Backend], ...]
    probed: tuple[tuple[Service, Backend], ...]
    direct: int  # row, or NONE
    sources: dict[Source, Owned]


class AgentTables:
    """Plans and commits the contents of one agent's tables."""

    def __init__(self, tables: Tables, own: Iterable[Address], muxes: Iterable[Address], mode: str) -> None:
        """``own``: where tunnels end. ``muxes``: accepted besides the file's. ``mode``: nat or local."""
        self.tables = tables
        self.own = frozenset(own)
        self.muxes = frozenset(muxes)
        self.mode = {"nat": NAT, "local": LOCAL}[mode]
        self.config: Config | None = None
        self.served: tuple[tuple[Service, Backend], ...] = ()
        self.probed: tuple[tuple[Service, Backend], ...] = ()
        """Services and backends that answer the muxes' probes of this host."""
        self.sources: dict[Source, Owned] = {}
        """The sources of this host's backends in nat mode, else empty."""
        self.direct = NONE
        self.elsewhere: frozenset[Address] = frozenset()
        """DIPs in other network namespaces, such as containers', whose sockets are looked up there."""

    @property
    def mux_addresses(self) -> frozenset[Address]:
        return self.muxes | frozenset(self.config.muxes if self.config else ())

    def knows_sockets_of(self, dip: Address) -> bool:
        """Return whether a DIP's sockets can be looked up, in this network namespace or in another one of the host."""
        return dip in self.own or dip in self.elsewhere

    def see_sockets_of(self, dips: frozenset[Address]) -> bool:
        """Set the DIPs in other network namespaces whose sockets can be looked up. Return whether they have changed.

        A plan that was made before may be committed later: call this regularly.
        """
        changed, self.elsewhere = dips != self.elsewhere, dips
        for service, backend in self.served:
            if self.config is not None and backend.dip not in self.own:
                value = identity(service.vip, service.port, service.protocol, backend.dip, backend.port, self.mode)
                is_row = (self.tables.backend_identities == value) & (self.tables.endpoints["state"] != GONE)
                self.tables.endpoints["checks_sockets"][is_row] = self.asks(self.config, service, backend)
        return changed

    def plan(self, config: Config) -> Plan:
        """Compute the contents for ``config`` without writing them. Raise TableError if they do not fit."""
        with with_limit_after_restart(self.tables.sizes, config, sizes_for):
            return self._plan(config)

    def _plan(self, config: Config) -> Plan:
        tables = self.tables
        served = tuple((s, b) for s in config.services for b in s.backends if b.tunnel_to in self.own)
        probed = probe_services(config, served)
        owners = dict.fromkeys(self._owner(s, b) for s, b in (*served, *probed))
        owner_rows = assign("services", tables.service_identities, owners, set())
        wanted = {identity(s.vip, s.port, s.protocol, b.dip, b.port, self.mode): (s, b) for s, b in (*served, *probed)}
        in_use = set(np.flatnonzero(tables.endpoints["state"] != GONE).tolist())
        translates = self.mode == NAT and bool(served)
        rows = assign("endpoints", tables.backend_identities, [*wanted, *([DIRECT] if translates else [])], in_use)
        names = [Name(TUNNEL_ADDRESS, address, 0, 0, 0) for address in self.own]
        names += [Name(MUX, address, 0, 0, 0) for address in self.muxes | set(config.muxes)]
        names += [Name(ENTROPY_MUX, prefix.network_address, 0, 0, 0) for prefix in config.tunnel.sources]
        endpoints = {}
        for value, (service, backend) in wanted.items():
            names += [Name(VIP, service.vip, port, PROTOCOLS[service.protocol], rows[value]) for port in service.ports]
            owner = owner_rows[self._owner(service, backend)]
            mss = advmss(config)[service.vip.version] if config.tunnel.clamp_mss else 0
            asks = self.asks(config, service, backend)
            endpoints[rows[value]] = (value, self._endpoint(rows[value], value, owner, service, backend, mss, asks))
        sources: dict[Source, Owned] = {}
        if translates:
            endpoints[rows[DIRECT]] = (DIRECT, self._direct(rows[DIRECT], config, served))
            for s, b in (*served, *probed):
                source = Source(PROTOCOLS[s.protocol], b.dip, b.port)
                owner = owner_rows[self._owner(s, b)]
                row = rows[identity(s.vip, s.port, s.protocol, b.dip, b.port, self.mode)]
                sources[source] = Owned(owner, (*sources.get(source, Owned(owner, ())).endpoints, row))
            names += dict.fromkeys(Name(SOURCE, b.dip, 0, 0, 0) for _, b in served)
            answering = (
                Name(DIP, b.dip, port, PROTOCOLS[s.protocol], owner_rows[self._owner(s, b)])
                for s, b in (*served, *probed)
                for port in ports_of(s, b)
            )
            names += dict.fromkeys(answering)  # two services may share a backend
        copy, salt = fill(tables, names)
        owners_by_row = {row: value for value, row in owner_rows.items()}
        return Plan(config, copy, salt, endpoints, owners_by_row, served, probed, rows.get(DIRECT, NONE), sources)

    def _owner(self, service: Service, backend: Backend) -> int:
        """Return the identity of the server's end of a flow: the DIP, or the VIP of a host that has it itself."""
        if self.mode == LOCAL:
            return identity(service.vip, service.port, service.protocol, backend.dip, backend.port)
        return identity(backend.dip, backend.port, service.protocol)

    def _direct(self, row: int, config: Config, served: Iterable[tuple[Service, Backend]]) -> NDArray[Any]:
        """Return the endpoint of direct connections: only replies are seen, so all idle timeouts are the same."""
        endpoint, identity_before = np.zeros((), ENDPOINT), int(self.tables.backend_identities[row])
        longest = max(ticks(service.idle_s) for service, _ in served)
        endpoint["idle_untrusted"] = endpoint["idle_trusted"] = endpoint["idle_closing"] = longest
        endpoint["mode"], endpoint["state"] = LOCAL, UP
        endpoint["checks_sockets"] = any(self.asks(config, service, backend) for service, backend in served)
        endpoint["generation"] = (
            int(self.tables.endpoints[row]["generation"]) + (identity_before not in (0, DIRECT))
        ) & 0xFF
        return endpoint

    def asks(self, config: Config, service: Service, backend: Backend) -> bool:
        """Return whether the agent looks up the socket of an unknown connection.

        It cannot look up the sockets of a virtual machine, or of a namespace that it may not enter.
        """
        is_here = self.mode == LOCAL or self.knows_sockets_of(backend.dip)
        return config.slowpath.second_chance and service.protocol == "tcp" and service.on_down == "reset" and is_here

    def _endpoint(
        self, row: int, value: int, owner: int, service: Service, backend: Backend, mss: int, asks: bool
    ) -> NDArray[Any]:
        endpoint, identity_before = np.zeros((), ENDPOINT), int(self.tables.backend_identities[row])
        endpoint["vip_high"], endpoint["vip_low"] = to_pair(service.vip)
        endpoint["dip_high"], endpoint["dip_low"] = to_pair(backend.dip)
        vip_port = service.port if len(service.ports) == 1 else 0
        endpoint["vip_port"], endpoint["dip_port"] = port_to_wire(vip_port), port_to_wire(backend.port)
        endpoint["mode"], endpoint["protocol"], endpoint["owner"] = self.mode, PROTOCOLS[service.protocol], owner
        endpoint["idle_untrusted"], endpoint["idle_trusted"] = ticks(service.idle.untrusted_s), ticks(service.idle_s)
        endpoint["idle_closing"], endpoint["state"] = ticks(service.idle.fin_s), UP
        endpoint["mss"] = mss
        endpoint["checks_sockets"] = asks
        endpoint["generation"] = (
            int(self.tables.endpoints[row]["generation"]) + (identity_before not in (0, value))
        ) & 0xFF
        return endpoint

    def commit(self, plan: Plan) -> None:
        """Put a plan in force with one switch between two packets."""
        tables, row = self.tables, self.tables.settings[0]
        for index, (value, contents) in plan.endpoints.items():
            tables.endpoints[index], tables.backend_identities[index] = contents, value
        for index, value in plan.owners.items():
            tables.service_identities[index] = value
        other = 1 - tables.active
        tables.addresses[other] = plan.names
        row[f"salt{other}"] = plan.salt
        row["longest_idle"] = max((ticks(s.idle_s) for s in plan.config.services), default=0)
        tunnel = plan.config.tunnel
        row["gue_port"], row["geneve_port"] = port_to_wire(tunnel.gue_port), port_to_wire(tunnel.geneve_port)
        row["any_port"] = any(service.port == 0 for service, _ in plan.served)
        row["entropy_muxes"] = bool(tunnel.sources)
        row["direct_endpoint"] = plan.direct
        row["active"] = other
        gone = np.setdiff1d(np.flatnonzero(tables.endpoints["state"] != GONE), list(plan.endpoints))
        tables.endpoints["state"][gone] = GONE
        self.config, self.served, self.probed = plan.config, plan.served, plan.probed
        self.sources, self.direct = plan.sources, plan.direct
