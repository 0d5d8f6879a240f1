"""A mux's tables, written from a configuration: planned beside the packets, put in force between two of them.

``plan`` reads the tables and computes (Maglev tables above all; it may run in a thread); ``commit`` copies the
result into the parts that are not in force and then switches.  Rows keep their owners, so the flow table
stays right across any number of changes.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, to_pair
from lbmux.control import maglev
from lbmux.control.config import Backend, Config, Service
from lbmux.control.identities import assign, identity
from lbmux.control.names import Name, fill
from lbmux.control.neighbours import NextHop
from lbmux.control.slots import Range, allocate
from lbmux.datapath.encapsulate import constant_sum, room_of
from lbmux.datapath.headers import TCP_PROTOCOL, UDP_PROTOCOL
from lbmux.datapath.tables import (
    BACKEND,
    DRAINING,
    GONE,
    HASH_DESTINATION,
    HASH_SOURCE,
    IPIP,
    NONE,
    SERVICE,
    TICK_SHIFT,
    UP,
    VIP,
    WAYS,
    Sizes,
)
from lbmux.targets.regions import Tables, now_ticks

PROTOCOLS = {"tcp": TCP_PROTOCOL, "udp": UDP_PROTOCOL}
ETHERNET_MTU = 1500
CLOCKS_APART = 16
"""Ticks; more than a step of the kernel's clock."""
ROUTE = ("interface", "mtu", "source_mac", "destination_mac")
"""What a backend's row has from its next hop."""


def ticks(seconds: float) -> int:
    return int(seconds * 1e9) >> TICK_SHIFT


def changed_now() -> int:
    """For a packet that a CPU is at work on, or one whose clock is a step behind, it must not lie in the future."""
    return (now_ticks() - CLOCKS_APART) & 0xFFFFFFFF


def power_of_two(at_least: int) -> int:
    return 1 << max(0, at_least - 1).bit_length()


def sizes_for(config: Config, workers: int = 1) -> Sizes:
    """Tables that hold this configuration and room to grow: twice its backends and Maglev tables.

    The flow table has two places a flow, so that nearly all of the limit can be used (see datapath.flows).
    """
    backends = sum(len(service.backends) for service in config.services)
    return Sizes(
        names=power_of_two(max(4096, 4 * len(config.services))),
        services=power_of_two(max(1024, len(config.services))),
        slots=power_of_two(2 * len(config.services) + 8) * config.maglev.size,
        backends=min(power_of_two(max(4096, 2 * backends)), 32768),
        buckets=power_of_two(-(-2 * config.flows.limit // (WAYS * workers))),
        workers=workers,
    )


@dataclass
class Plan:
    """Everything that ``commit`` has to copy."""

    config: Config
    names: NDArray[Any]
    salt: int
    services: NDArray[Any]
    slots: list[tuple[int, NDArray[np.uint16]]] = field(default_factory=list)
    backends: dict[int, tuple[int, NDArray[Any]]] = field(default_factory=dict)  # row: (identity, contents)
    identities: dict[int, int] = field(default_factory=dict)  # service row: identity
    tables: dict[int, tuple[Any, Range]] = field(default_factory=dict)  # service row: (what its table is of, where)
    rows: dict[tuple[str, str], int] = field(default_factory=dict)  # (service, backend) names: row


class MuxTables:
    """The control side's hold on one mux's tables."""

    def __init__(self, tables: Tables, local: IPv4Address) -> None:
        """``local``: the source of the outer headers."""
        self.tables = tables
        self.local = local
        self.config: Config | None = None
        self.rows: dict[tuple[str, str], int] = {}
        self._built: dict[int, tuple[Any, Range]] = {}
        self._hops: dict[Address, NextHop | None] = {}
        self._freed: list[Range] = []
        self._adopt()

    def _adopt(self) -> None:
        """Tables that were in force before: where their Maglev tables lie is not to be written to."""
        for row, service in enumerate(self.tables.services[self.tables.active]):
            if service["size"]:
                self._built[row] = (None, (int(service["slots"]), int(service["size"])))

    def plan(self, config: Config) -> Plan:
        """What to write for ``config``; TableError where it does not fit.  Changes nothing."""
        tables = self.tables
        services = {identity(s.vip, s.protocol, s.port): s for s in config.services}
        service_rows = assign("services", tables.service_identities, services, set())
        backends = {
            identity(*key, b.dip, b.port, b.tunnel_to): (service_rows[identity(*key)], s, b)
            for s in config.services
            for key in [(s.vip, s.protocol, s.port)]
            for b in s.backends
        }
        in_use = set(np.flatnonzero(tables.backends["state"] != GONE).tolist())
        backend_rows = assign("backends", tables.backend_identities, backends, in_use)
        names = [
            Name(VIP, s.vip, s.port, PROTOCOLS[s.protocol], service_rows[value]) for value, s in services.items()
        ]
        copy, salt = fill(tables, names)
        plan = Plan(config, copy, salt, np.zeros(tables.sizes.services, SERVICE))
        plan.identities = {row: value for value, row in service_rows.items()}
        for value, (service_row, service, backend) in backends.items():
            row = backend_rows[value]
            plan.rows[service.name, backend.name] = row
            plan.backends[row] = (value, self._backend(row, value, service_row, backend))
        for value, service in services.items():
            self._plan_service(plan, service_rows[value], service)
        return plan

    def _plan_service(self, plan: Plan, row: int, service: Service) -> None:
        config = plan.config
        live = [(b.name, b.weight, plan.rows[service.name, b.name]) for b in service.backends if b.weight]
        what, place = (tuple(sorted(live)), config.maglev.size), (0, 0)
        if live:
            built = self._built.get(row)
            if built is not None and built[0] == what:
                place = built[1]
            else:
                names, weights, rows = zip(*live, strict=True)
                table = np.array(rows, np.uint16)[maglev.build(names, weights, config.maglev.size)]
                taken = [at for _, at in (*self._built.values(), *plan.tables.values())]
                place = (allocate(self.tables.sizes.slots, taken + self._freed, len(table)), len(table))
                plan.slots.append((place[0], table))
        plan.tables[row] = (what, place)
        before = self._built.get(row)
        previous = NONE  # of another size it would be another table
        if before is not None and before[1] != place and before[1][1] == place[1]:
            previous = before[1][0]
        idle = (ticks(service.idle.untrusted_s), ticks(service.idle.trusted_s), ticks(service.idle.closing_s))
        plan.services[row] = (
            *place, *idle, config.maglev.seed, HASH_SOURCE | HASH_DESTINATION, 0xFFFFFFFF, 0, 0, 0, 0, 0, 0, previous,
            0, 0,
        )  # fmt: skip

    def _backend(self, row: int, value: int, service_row: int, backend: Backend) -> NDArray[Any]:
        """The contents of a backend's row; a row that changes its owner changes its generation."""
        before = self.tables.backends[row]
        after = np.zeros((), BACKEND)
        after["local_high"], after["local_low"] = to_pair(self.local)
        after["remote_high"], after["remote_low"] = to_pair(backend.tunnel_to)
        after["checksum"] = constant_sum(int(self.local), int(backend.tunnel_to))
        after["mtu"], after["service"], after["room"] = ETHERNET_MTU, service_row, room_of(IPIP, is_ipv6=False)
        after["state"] = UP if backend.weight else DRAINING
        held = int(self.tables.backend_identities[row])
        after["generation"] = (int(before["generation"]) + (held not in (0, value))) & 0xFF
        if backend.tunnel_to in self._hops:
            _route(after, self._hops[backend.tunnel_to])
        elif held == value:
            for name in ROUTE:
                after[name] = before[name]
        return after

    def commit(self, plan: Plan) -> None:
        """Put a plan in force.  Nothing that a packet may be reading is written before the switch."""
        tables, row = self.tables, self.tables.settings[0]
        for at, table in plan.slots:
            tables.slots[at : at + len(table)] = table
        for index, (value, contents) in plan.backends.items():
            tables.backends[index], tables.backend_identities[index] = contents, value
        for index, value in plan.identities.items():
            tables.service_identities[index] = value
        other = 1 - tables.active
        tables.names[other], tables.services[other] = plan.names, plan.services
        row[f"salt{other}"] = plan.salt
        limits = plan.config.flows
        row["trusted_ways"] = max(1, round(WAYS * limits.trusted_share))
        row["untrusted_ways"] = max(1, round(WAYS * limits.untrusted_share))
        row["idle_longest"] = max((ticks(s.idle.trusted_s) for s in plan.config.services), default=0)
        in_force = bool(self._built)  # else there is no flow yet that a change could have moved
        row["changed"] = changed_now() if in_force else (now_ticks() - int(row["idle_longest"]) - 1) & 0xFFFFFFFF
        row["active"] = other
        gone = np.setdiff1d(np.flatnonzero(tables.backends["state"] != GONE), list(plan.backends))
        tables.backends["state"][gone] = GONE
        kept = {place for _, place in plan.tables.values()}
        self._freed = [place for _, place in self._built.values() if place not in kept]
        self._built, self.config, self.rows = plan.tables, plan.config, plan.rows

    def set_next_hop(self, destination: Address, hop: NextHop | None) -> None:
        """Where packets for a host go from now on; None: its MAC address is not known."""
        self._hops[destination] = hop
        high, low = to_pair(destination)
        backends = self.tables.backends
        for row in np.flatnonzero((backends["remote_low"] == low) & (backends["remote_high"] == high)):
            _route(backends[row], hop)

    def destinations(self) -> set[Address]:
        """The hosts that packets are tunnelled to."""
        services = self.config.services if self.config else ()
        return {backend.tunnel_to for service in services for backend in service.backends}


def _route(row: Any, hop: NextHop | None) -> None:
    """The MAC address last, in one store: until then the row is as it was."""
    if hop is None:
        row["destination_mac"] = 0
        return
    row["interface"], row["mtu"], row["source_mac"] = hop.interface_index, min(hop.mtu, 65535), hop.source_mac
    row["destination_mac"] = hop.destination_mac
