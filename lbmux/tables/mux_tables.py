"""Writes a mux's tables from a configuration: planned off the packet path, put in force between two packets.

``plan`` reads the tables and computes the changes, mainly Maglev tables; it may run in a thread.  ``commit`` copies the
result into the inactive copies and then switches.  Rows keep their owners, so the flow table stays valid.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, port_to_wire, to_pair
from lbmux.config.models import Backend, Config, Service, kind_of
from lbmux.config.traffic_models import TunnelKind
from lbmux.datapath.encapsulate import constant_sum, overhead_bytes_of
from lbmux.datapath.tables import (
    BACKEND,
    DRAINING,
    ENTROPY,
    GONE,
    HASH_DESTINATION,
    HASH_SOURCE,
    NONE,
    OUTER_IPV6,
    SERVICE,
    SLOT,
    TICK_SHIFT,
    TRACK_ALL,
    TRACK_CHANGED,
    TRACK_NONE,
    UP,
    VIP,
    WAYS,
    Sizes,
)
from lbmux.errors import SetupError, TableError
from lbmux.linux.next_hops import NextHop
from lbmux.tables import maglev, slot_pairs
from lbmux.tables.access_lists import Network, access_rows
from lbmux.tables.address_map import Name, ServerId, fill
from lbmux.tables.row_identities import assign, identity
from lbmux.tables.slot_allocation import Range, allocate
from lbmux.tables.slot_states import NO_TABLE, SlotStates
from lbmux.tables.table_limits import with_limit_after_restart
from lbmux.targets.regions import Tables, now_ticks
from lbmux.wire.numbers import TCP_PROTOCOL, UDP_PROTOCOL

PROTOCOLS = {"tcp": TCP_PROTOCOL, "udp": UDP_PROTOCOL}
ETHERNET_MTU = 1500
KERNEL_SLOT_BYTES = 1 << 29
"""Slots that a kernel program can address."""
CLOCKS_APART = 16
"""Ticks; more than a step of the kernel's clock."""
TUNNEL_KINDS = get_args(TunnelKind)
PORTS, DESTINATION_PORT = 0xFFFFFFFF, 0xFFFF0000
"""Masks of both ports as loaded."""
HASHED = {
    "five_fields": (HASH_SOURCE | HASH_DESTINATION, PORTS),
    "source": (HASH_SOURCE, 0),
    "source_destination": (HASH_SOURCE | HASH_DESTINATION, 0),
    "destination_port": (0, DESTINATION_PORT),
}
TRACKING = {"changed": TRACK_CHANGED, "all": TRACK_ALL, "none": TRACK_NONE}
ROUTE = ("interface", "mtu", "source_mac", "destination_mac")
"""What a backend's row has from its next hop."""


def ticks(seconds: float) -> int:
    return int(seconds * 1e9) >> TICK_SHIFT


def changed_at(now: int) -> int:
    """Return a time for a change that no CPU sees in the future, even if its clock is a step behind."""
    return (now - CLOCKS_APART) & 0xFFFFFFFF


def rate_of(per_s: int | None, workers: int) -> int:
    """Convert a limit per second to one per worker and 1024 ticks; 0: no limit."""
    if per_s is None:
        return 0
    cpus = max(1, workers - 1)  # the last part is user space's, which has what the kernel punts
    return max(1, round(per_s * (1024 << TICK_SHIFT) / 1e9 / cpus))


def power_of_two(at_least: int) -> int:
    return 1 << max(0, at_least - 1).bit_length()


def sizes_for(config: Config, workers: int = 1) -> Sizes:
    """Tables that hold this configuration and room to grow: twice its backends and Maglev tables.

    The flow table has two places a flow, so that nearly all of the limit can be used (see datapath.flows).
    """
    backends = sum(len(service.backends) for service in config.services)
    tables = power_of_two(2 * len(config.services) + 8)
    if tables * config.maglev.size * SLOT.itemsize > KERNEL_SLOT_BYTES:
        tables = 2 * len(config.services) + 8
    names = sum(len(service.ports) for service in config.services)
    names += sum(backend.server_id is not None for service in config.services for backend in service.backends)
    prefixes = sum(len(service.allow) + len(service.deny) + 1 for service in config.services)
    return Sizes(
        addresses=power_of_two(max(4096, 4 * names)),
        services=power_of_two(max(1024, len(config.services))),
        slots=tables * config.maglev.size,
        backends=min(power_of_two(max(4096, 2 * backends)), 32768),
        buckets=power_of_two(-(-2 * config.flows.limit // (WAYS * workers))),
        workers=workers,
        rules=power_of_two(max(4096, 4 * prefixes)),
    )


@dataclass
class Plan:
    """The contents that ``commit`` copies into the tables."""

    config: Config
    names: NDArray[Any]
    salt: int
    services: NDArray[Any]
    slots: list[tuple[int, slot_pairs.Pairs]] = field(default_factory=list)
    backends: dict[int, tuple[int, NDArray[Any]]] = field(default_factory=dict)  # row: (identity, contents)
    identities: dict[int, int] = field(default_factory=dict)  # service row: identity
    contents: dict[int, Any] = field(default_factory=dict)  # service row: what its Maglev table is built of
    places: dict[int, Range] = field(default_factory=dict)  # service row: where its Maglev table lies
    former: dict[int, Range] = field(default_factory=dict)  # service row: the former table, which has bases
    began: dict[int, NDArray[np.uint32]] = field(default_factory=dict)  # service row: slots that begin to change
    removed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))  # by row of backends
    rules: list[tuple[int, NDArray[Any]]] = field(default_factory=list)  # where, rows of an access list
    lists: dict[int, Range] = field(default_factory=dict)  # service row: where its access list lies
    rows: dict[tuple[str, str], int] = field(default_factory=dict)  # (service, backend) names: row


class MuxTables:
    """Plans and commits the contents of one mux's tables."""

    def __init__(self, tables: Tables, *local: Address, clock: Callable[[], int] = now_ticks) -> None:
        """``local``: the source of the outer headers, one of each family that hosts have.

        ``clock``: the clock by which packets are forwarded, in ticks; by default the machine's.
        """
        self.tables, self._clock = tables, clock
        self.slots = SlotStates(tables, clock)
        self.local = {address.version: address for address in reversed(local)}
        self.config: Config | None = None
        self.rows: dict[tuple[str, str], int] = {}
        self._contents: dict[int, Any] = {}
        """What the Maglev table of each service row was built of; None or missing if unknown."""
        self._hops: dict[Address, NextHop | None] = {}
        self._freed: list[Range] = []
        self._lists = {
            row: (int(service["rules"]), int(service["rule_count"]))
            for row, service in enumerate(tables.services[tables.active])
            if service["rule_count"]
        }

    def settle(self, now: int) -> None:
        """See SlotStates.settle."""
        self._freed += self.slots.settle(now)

    def forget_changes(self) -> None:
        """See SlotStates.forget_changes."""
        self._freed += self.slots.forget_changes()

    def plan(self, config: Config) -> Plan:
        """Compute what to write for ``config``, without changes; raise TableError if it does not fit."""
        with with_limit_after_restart(self.tables.sizes, config, sizes_for):
            return self._plan(config)

    def _plan(self, config: Config) -> Plan:
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
        names: list[Name | ServerId] = [
            Name(VIP, s.vip, port, PROTOCOLS[s.protocol], service_rows[value])
            for value, s in services.items()
            for port in s.ports
        ]
        names += [
            ServerId(bytes.fromhex(b.server_id), row, backend_rows[value])
            for value, (row, _, b) in backends.items()
            if b.server_id is not None
        ]
        copy, salt = fill(tables, names)
        plan = Plan(config, copy, salt, np.zeros(tables.sizes.services, SERVICE))
        plan.identities = {row: value for value, row in service_rows.items()}
        for value, (service_row, service, backend) in backends.items():
            row = backend_rows[value]
            plan.rows[service.name, backend.name] = row
            kind = kind_of(config, service, backend)
            plan.backends[row] = (value, self._backend(row, value, service_row, backend, kind, config.tunnel.sources))
        plan.removed = self._removed(plan.backends)
        for value, service in services.items():
            self._plan_service(plan, service_rows[value], service)
        return plan

    def _plan_service(self, plan: Plan, index: int, service: Service) -> None:
        config, row = plan.config, plan.services[index]
        row["slots"], row["size"] = self._plan_slots(plan, index, service)
        row["former"], row["former_size"] = plan.former.get(index, (NONE, 0))
        row["tracking"], row["changed"] = TRACKING[service.tracking], self._changed(plan, index)
        row["rules"], row["rule_count"] = self._plan_rules(plan, index, service)
        row["idle_untrusted"], row["idle_trusted"] = ticks(service.idle.untrusted_s), ticks(service.idle_s)
        row["idle_closing"], row["seed"] = ticks(service.idle.fin_s), config.maglev.seed
        row["hashed"], row["port_mask"] = HASHED[service.hash]
        row["rejects"] = service.on_no_backend != "drop" and config.slowpath.rejects_per_s > 0
        per_s = service.new_flows_per_s if row["size"] else config.slowpath.rejects_per_s
        row["rate"] = rate_of(per_s, self.tables.sizes.workers)
        if service.quic is not None:
            row["quic_bytes"], row["quic_rotation"] = service.quic.id_bytes, service.quic.rotation

    def _plan_slots(self, plan: Plan, index: int, service: Service) -> Range:
        """Return the range for the service's Maglev table."""
        live = [(b.name, b.weight, plan.rows[service.name, b.name]) for b in service.backends if b.weight]
        contents, place = (tuple(sorted(live)), plan.config.maglev.size), NO_TABLE
        if live and self._contents.get(index) == contents:
            place = self.slots.places[index]
        elif live:
            names, weights, rows = zip(*live, strict=True)
            table = np.array(rows, np.uint16)[maglev.build(names, weights, plan.config.maglev.size)]
            place = (self._gap(plan, len(table)), len(table))
            pairs, plan.began[index] = self.slots.changed_to(index, table, plan.removed)
            plan.slots.append((place[0], pairs))
        plan.contents[index], plan.places[index] = contents, place
        former = self.slots.former_of(index, place)
        if former is not None and not self._taken(plan, former):
            plan.former[index] = former
        return place

    def _removed(self, backends: Mapping[int, tuple[int, Any]]) -> NDArray[np.bool_]:
        """Return for each row of backends whether its present backend is not among those of a plan."""
        identities = self.tables.backend_identities
        removed = np.ones(len(self.tables.backends), np.bool_)
        removed[[row for row, (value, _) in backends.items() if int(identities[row]) == value]] = False
        return removed

    def _changed(self, plan: Plan, index: int) -> int:
        """Return when the service's table last changed, in ticks."""
        is_lost = plan.places[index] == NO_TABLE and self.slots.places.get(index, NO_TABLE) != NO_TABLE
        if is_lost or len(plan.began.get(index, ())):
            return changed_at(self._clock())
        return int(self.tables.services[self.tables.active, index]["changed"])

    def _gap(self, plan: Plan, size: int) -> int:
        """Return the first slot of a free range; if space is short, former tables are given up."""
        taken = [*self.slots.places.values(), *plan.places.values(), *self._freed]
        try:
            return allocate(self.tables.sizes.slots, [*taken, *self.slots.former.values()], size)
        except TableError:
            return allocate(self.tables.sizes.slots, taken, size)

    def _taken(self, plan: Plan, place: Range) -> bool:
        """Whether a new Maglev table is to lie there."""
        return any(at < place[0] + place[1] and place[0] < at + len(table) for at, table in plan.slots)

    def _plan_rules(self, plan: Plan, index: int, service: Service) -> Range:
        """Return the range for the service's access list; raise TableError if there is no room."""
        rules = [(prefix, True) for prefix in service.allow] + [(prefix, False) for prefix in service.deny]
        if not rules:
            return (0, 0)
        rows = access_rows(rules, otherwise=not service.allow)
        held = self._lists.get(index)
        if held is not None and np.array_equal(self.tables.rules[held[0] : sum(held)], rows):
            plan.lists[index] = held
            return held
        taken = [*self._lists.values(), *plan.lists.values()]
        place = (allocate(self.tables.sizes.rules, taken, len(rows), "rules"), len(rows))
        plan.rules.append((place[0], rows))
        plan.lists[index] = place
        return place

    def _backend(
        self, row: int, value: int, service_row: int, backend: Backend, kind: str, sources: tuple[Network, ...]
    ) -> NDArray[Any]:
        """The contents of a backend's row; a row that changes its owner changes its generation."""
        before = self.tables.backends[row]
        after, remote = np.zeros((), BACKEND), backend.tunnel_to
        wide = next((prefix for prefix in sources if prefix.version == remote.version), None)
        local = wide.network_address if wide else self.local.get(remote.version)
        if local is None:
            why = f"no own IPv{remote.version} address for packets to {remote}"
            raise SetupError("mux", why, "name one by --address")
        is_ipv6, number = remote.version == 6, TUNNEL_KINDS.index(kind)
        after["local_high"], after["local_low"] = to_pair(local)
        after["remote_high"], after["remote_low"] = to_pair(remote)
        after["tunnel"] = number | OUTER_IPV6 * is_ipv6 | ENTROPY * (wide is not None)
        after["overhead_bytes"] = overhead_bytes_of(number, is_ipv6)
        after["checksum"] = 0 if is_ipv6 else constant_sum(int(local), int(remote))
        after["mtu"], after["service"] = ETHERNET_MTU, service_row
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
        words = tables.slots.view(np.uint32)  # a copy by words is many times as fast as one by fields
        for at, pairs in plan.slots:
            words[at : at + len(pairs)] = pairs.view(np.uint32)
        for at, rules in plan.rules:
            tables.rules[at : at + len(rules)] = rules
        for index, (value, contents) in plan.backends.items():
            if int(tables.backend_identities[index]) not in (0, value):
                self.slots.forget_row(int(tables.backends[index]["service"]), index)
            tables.backends[index], tables.backend_identities[index] = contents, value
        for index, value in plan.identities.items():
            tables.service_identities[index] = value
        other = 1 - tables.active
        tables.addresses[other], tables.services[other] = plan.names, plan.services
        row[f"salt{other}"] = plan.salt
        limits = plan.config.flows
        row["trusted_ways"] = max(1, round(WAYS * limits.trusted_share))
        row["untrusted_ways"] = max(1, round(WAYS * limits.untrusted_share))
        row["longest_idle"] = max((ticks(s.idle_s) for s in plan.config.services), default=0)
        in_force = bool(self.slots.places)  # else there is no flow yet that a change could have moved
        now = self._clock()
        row["tables_changed"] = changed_at(now) if in_force else (now - int(row["longest_idle"]) - 1) & 0xFFFFFFFF
        tunnel = plan.config.tunnel
        row["gue_port"], row["geneve_port"] = port_to_wire(tunnel.gue_port), port_to_wire(tunnel.geneve_port)
        row["any_port"] = any(service.port == 0 for service in plan.config.services)
        row["active"] = other
        gone = np.setdiff1d(np.flatnonzero(tables.backends["state"] != GONE), list(plan.backends))
        tables.backends["state"][gone] = GONE
        left = {*self.slots.places.values(), *self.slots.former.values()}
        self._freed = list(left - {*plan.places.values(), *plan.former.values()})
        self.slots.commit(plan.places, plan.former, plan.began)
        self._contents, self._lists = plan.contents, plan.lists
        self.config, self.rows = plan.config, plan.rows

    def set_next_hop(self, destination: Address, hop: NextHop | None) -> None:
        """Set the next hop for packets to a host; None: its MAC address is not known."""
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
