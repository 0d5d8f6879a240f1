"""Plans a mux's tables for a configuration, off the packet path.

Only differences from the configuration in force are planned: an unchanged service keeps its rows, its Maglev table and
its access list.  Rows keep their owners, so the flow table stays valid.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address
from lbmux.config.models import Config, Service, kind_of, slots_of
from lbmux.datapath.tables import (
    BACKEND,
    FORMER_TABLE,
    GONE,
    NONE,
    RATE_BLOCKS,
    VIP,
    VIP_ADDRESS,
)
from lbmux.errors import TableError
from lbmux.linux.next_hops import NextHop
from lbmux.tables import maglev
from lbmux.tables.access_lists import access_rows
from lbmux.tables.address_map import Name, ServerId, fill
from lbmux.tables.mux_contents import Contents, PlacedService, Plan
from lbmux.tables.mux_rows import (
    PROTOCOLS,
    ROUTE,
    OuterSources,
    fill_backend,
    fill_service,
    prices_of,
    set_route,
    shares_of,
)
from lbmux.tables.row_identities import assign, identity
from lbmux.tables.slot_allocation import Gaps, Range
from lbmux.tables.slot_states import NO_TABLE, SlotStates
from lbmux.targets.regions import Tables

CLOCKS_APART = 16
"""Number of ticks, more than one step of the kernel's clock."""


def changed_at(now: int) -> int:
    """Return a time for a change that no CPU sees in the future, even if its clock is a step behind."""
    return (now - CLOCKS_APART) & 0xFFFFFFFF


class Planner:
    """Plans one change of the tables.  It reads them, and writes nothing."""

    def __init__(
        self, tables: Tables, before: Contents, slots: SlotStates, freed: Iterable[Range], clock: Callable[[], int]
    ) -> None:
        """``freed``: ranges of slots that a packet may still be reading."""
        self._tables, self._before, self._slots, self._clock = tables, before, slots, clock
        self._freed = list(freed)
        self._gaps: Gaps | None = None
        self._taken: list[Range] = []
        self._maglev: dict[tuple[Any, ...], NDArray[np.uint16]] = {}
        """The Maglev tables of named pools by names, weights and size: their services have the same."""
        self.gave_up_former = False
        """Whether new Maglev tables overwrite former ones, because space is short."""

    def plan(self, config: Config, own: Mapping[int, Address], hops: Mapping[Address, NextHop | None]) -> Plan:
        """Plan the tables for ``config``; raise TableError if it does not fit.

        ``own``: the sources of outer headers, by version of IP; ``hops``: the next hops to hosts.
        """
        kept, changed = self._compared(config)
        leaving = [self._before.services[name] for name in self._before.services.keys() - kept.keys()]
        plan = self._begin(config, kept, leaving)
        self._assign_rows(plan, changed, kept)
        self._plan_names(plan, changed)
        self._plan_backends(plan, changed, OuterSources(own, config.tunnel.sources), hops)
        self._plan_removal(plan, kept, leaving)
        for service in changed:
            self._plan_service(plan, service)
        self._plan_prices(plan, changed)
        plan.longest_idle = int(plan.services["idle_trusted"].max())
        plan.any_port = bool(np.any((plan.names["kind"] == VIP) & (plan.names["port"] == 0)))
        if self.gave_up_former:
            _drop_overwritten(plan)
        return plan

    def _compared(self, config: Config) -> tuple[dict[str, PlacedService], list[Service]]:
        """Return the services whose rows stay as they are, and the other services of ``config``.

        Most services are the same objects as before, so only the others are compared by their fields.
        """
        before = self._before
        if before.config is None or _shared(before.config) != _shared(config):
            return {}, list(config.services)
        kept, changed = dict(before.services), list[Service]()
        new, old = _without_common_ends(config.services, before.config.services)
        numbers, numbers_before = set(map(id, new)), set(map(id, old))
        for service in old:
            if id(service) not in numbers:
                del kept[service.name]
        for service in new:
            if id(service) in numbers_before:
                continue
            placed = before.services.get(service.name)
            if placed is not None and placed.service == service:
                kept[service.name] = placed
            else:
                changed.append(service)
        return kept, changed

    def _begin(self, config: Config, kept: Mapping[str, PlacedService], leaving: Iterable[PlacedService]) -> Plan:
        """Return a plan with only the kept services."""
        tables, before, slots = self._tables, self._before, self._slots
        plan = Plan(before, config, tables.addresses[tables.active], int(tables.settings[0][f"salt{tables.active}"]))
        plan.services, plan.placed = tables.services[tables.active].copy(), dict(kept)
        if not kept:  # the tables may have been adopted, with rows of unknown services
            plan.services[:], plan.changed = 0, set(slots.places)
            return plan
        plan.lists, plan.built = dict(before.lists), dict(before.built)
        plan.places, plan.former = dict(slots.places), dict(slots.former)
        plan.changed = {placed.row for placed in leaving}
        plan.services[list(plan.changed)] = 0
        for row in plan.changed:
            for of_rows in (plan.lists, plan.built, plan.places, plan.former):
                of_rows.pop(row, None)
        return plan

    def _assign_rows(self, plan: Plan, changed: Iterable[Service], kept: Mapping[str, PlacedService]) -> None:
        tables = self._tables
        values = {_identity(service): service for service in changed}
        rows = assign("services", tables.service_identities, values, {placed.row for placed in kept.values()})
        in_use = np.flatnonzero(tables.backends["state"] != GONE).tolist()
        identities = tables.backend_identities[:FORMER_TABLE]  # the numbers from there on have other meanings in slots
        backends = {value: (s, b.name) for s in values.values() for value, b in _backend_identities(s)}
        assigned = assign("backends", identities, backends, in_use)
        by_service: dict[str, dict[str, int]] = {service.name: {} for service in values.values()}
        for value, (service, name) in backends.items():
            by_service[service.name][name] = assigned[value]
        for value, service in values.items():
            plan.placed[service.name] = PlacedService(service, rows[value], by_service[service.name])
            plan.identities[rows[value]] = value
        plan.changed |= set(plan.identities)

    def _plan_names(self, plan: Plan, changed: Iterable[Service]) -> None:
        """Rebuild the address map if any name or its row differs."""
        before = self._before.services
        is_same = plan.placed.keys() == before.keys()
        if not is_same or any(_names(plan.placed[one.name]) != _names(before[one.name]) for one in changed):
            names = [name for placed in plan.placed.values() for name in _names(placed)]
            names += [Name(VIP_ADDRESS, vip, 0, 0, row) for vip, row in plan.contents.vips.items()]
            plan.names, plan.salt = fill(self._tables, names)

    def _plan_backends(
        self, plan: Plan, changed: Sequence[Service], sources: OuterSources, hops: Mapping[Address, NextHop | None]
    ) -> None:
        tables = self._tables
        backends = [(plan.placed[service.name], *one) for service in changed for one in _backend_identities(service)]
        plan.backend_rows = [placed.backends[backend.name] for placed, _, backend in backends]
        plan.backend_identities = np.array([value for _, value, _ in backends], np.uint64)
        plan.backend_contents = after = np.zeros(len(backends), BACKEND)
        before, identities = tables.backends[plan.backend_rows], tables.backend_identities[plan.backend_rows]
        after["generation"] = before["generation"] + ((identities != 0) & (identities != plan.backend_identities))
        for number, (placed, value, backend) in enumerate(backends):
            kind = kind_of(plan.config, placed.service, backend)
            fill_backend(after[number], backend, kind, placed.row, sources.of(backend.tunnel_to))
            if backend.tunnel_to in hops:
                set_route(after[number], hops[backend.tunnel_to])
            elif identities[number] == value:
                for name in ROUTE:
                    after[number][name] = before[number][name]

    def _plan_removal(self, plan: Plan, kept: Mapping[str, PlacedService], leaving: Iterable[PlacedService]) -> None:
        """Find the rows of backends that go away, and those that get another backend."""
        before = self._tables.backends["state"] != GONE
        after = before & bool(kept)
        after[[row for placed in leaving for row in placed.backends.values()]] = False
        after[plan.backend_rows] = True
        plan.gone, plan.removed = np.flatnonzero(before & ~after), ~after
        identities = self._tables.backend_identities[plan.backend_rows]
        plan.removed[plan.backend_rows] = identities != plan.backend_identities

    def _plan_prices(self, plan: Plan, changed: Sequence[Service]) -> None:
        """Fill in the prices of rate limits, in the order of ``plan.identities`` and ``plan.backend_rows``."""
        by_row = {plan.placed[service.name].row: prices_of(plan.config, service) for service in changed}
        by_kind = [[by_row[row][kind] for row in plan.identities] for kind in range(RATE_BLOCKS)]
        plan.prices = np.array(by_kind, np.uint32)
        shares = [share for service in changed for share in shares_of(service).values()]
        plan.backend_prices = np.array(shares, np.uint32)

    def _plan_service(self, plan: Plan, service: Service) -> None:
        index = plan.placed[service.name].row
        row = plan.services[index]
        row["slots"], row["size"] = self._plan_slots(plan, index, service)
        row["former"], row["former_size"] = plan.former.get(index, (NONE, 0))
        row["changed"] = self._changed(plan, index)
        row["rules"], row["rule_count"] = self._plan_rules(plan, index, service)
        fill_service(row, plan.config, service)

    def _plan_slots(self, plan: Plan, index: int, service: Service) -> Range:
        """Return the range for the service's Maglev table."""
        rows = plan.placed[service.name].backends
        live = sorted((b.name, b.weight, rows[b.name]) for b in service.backends if b.weight)
        size = slots_of(plan.config, service)
        built, place = (tuple(live), size), NO_TABLE
        if live and self._before.built.get(index) == built:
            place = self._slots.places[index]
        elif live:
            names, weights, numbers = zip(*live, strict=True)
            table = np.array(numbers, np.uint16)[self._table(service, names, weights, size)]
            place = (self._gap(len(table)), len(table))
            pairs, plan.began[index] = self._slots.changed_to(index, table, plan.removed)
            plan.slots.append((place[0], pairs))
        plan.built[index], plan.places[index] = built, place
        former = self._slots.former_of(index, place)
        if former is not None:
            plan.former[index] = former
        return place

    def _table(self, service: Service, *of: Any) -> NDArray[np.uint16]:
        """Return a service's Maglev table ``of`` names, weights and a size."""
        if service.pool is None:
            return maglev.build(*of)
        if of not in self._maglev:
            self._maglev[of] = maglev.build(*of)
        return self._maglev[of]

    def _changed(self, plan: Plan, index: int) -> int:
        """Return when the service's table last changed, in ticks."""
        is_lost = plan.places[index] == NO_TABLE and self._slots.places.get(index, NO_TABLE) != NO_TABLE
        if is_lost or len(plan.began.get(index, ())):
            return changed_at(self._clock())
        return int(self._tables.services[self._tables.active, index]["changed"])

    def _gap(self, size: int) -> int:
        """Return the first slot of a free range; if space is short, former tables are given up."""
        if self._gaps is None:
            self._gaps = self._gaps_beside(self._slots.former.values())
        try:
            at = self._gaps.take(size)
        except TableError:
            if self.gave_up_former:
                raise
            self.gave_up_former, self._gaps = True, self._gaps_beside(self._taken)
            at = self._gaps.take(size)
        self._taken.append((at, size))
        return at

    def _gaps_beside(self, others: Iterable[Range]) -> Gaps:
        """Return the space that neither tables in force nor ``others`` take, and that no packet may be reading."""
        return Gaps(self._tables.sizes.slots, [*self._slots.places.values(), *self._freed, *others])

    def _plan_rules(self, plan: Plan, index: int, service: Service) -> Range:
        """Return the range for the service's access list; raise TableError if there is no room."""
        if not service.allow and not service.deny:
            return (0, 0)
        place, before = self._before.lists.get(index), self._before.services.get(service.name)
        is_same = before is not None and before.row == index and _lists(before.service) == _lists(service)
        if place is None or not is_same:
            rules = [(prefix, True) for prefix in service.allow] + [(prefix, False) for prefix in service.deny]
            rows = access_rows(rules, default=not service.allow)
            if place is None or not np.array_equal(self._tables.rules[place[0] : sum(place)], rows):
                taken = [*self._before.lists.values(), *plan.lists.values()]
                place = (Gaps(self._tables.sizes.rules, taken, "rules").take(len(rows)), len(rows))
                plan.rules.append((place[0], rows))
        plan.lists[index] = place
        return place


def _without_common_ends(new: Sequence[Service], old: Sequence[Service]) -> tuple[Sequence[Service], Sequence[Service]]:
    """Return both without the objects with which both begin, and those with which both end."""
    first = _common(new, old)
    new, old = new[first:], old[first:]
    last = _common(reversed(new), reversed(old))
    return new[: len(new) - last], old[: len(old) - last]


def _common(one: Iterable[Service], other: Iterable[Service]) -> int:
    return sum(1 for _ in takewhile(bool, map(operator.is_, one, other)))


def _shared(config: Config) -> tuple[Any, ...]:
    """Return the settings on which the rows of all services depend."""
    return config.maglev, config.tunnel, config.slowpath.rejects_per_s


def _identity(service: Service) -> int:
    return identity(service.vip, service.protocol, service.port)


def _backend_identities(service: Service) -> list[tuple[int, Any]]:
    key = (service.vip, service.protocol, service.port)
    return [(identity(*key, b.dip, b.port, b.tunnel_to), b) for b in service.backends]


def _lists(service: Service) -> tuple[Any, ...]:
    return service.allow, service.deny


def _names(placed: PlacedService) -> list[Name | ServerId]:
    """Return the entries of the address map: VIP and ports, and the server IDs of QUIC."""
    service, protocol = placed.service, PROTOCOLS[placed.service.protocol]
    names: list[Name | ServerId] = [Name(VIP, service.vip, port, protocol, placed.row) for port in service.ports]
    for backend in service.backends:
        if backend.server_id is not None:
            names.append(ServerId(bytes.fromhex(backend.server_id), placed.row, placed.backends[backend.name]))
    return names


def _drop_overwritten(plan: Plan) -> None:
    """Drop the former tables that a new table overwrites."""
    taken = [(at, at + len(pairs)) for at, pairs in plan.slots]
    for index, (at, size) in list(plan.former.items()):
        if any(start < at + size and at < end for start, end in taken):
            del plan.former[index]
            plan.services[index]["former"] = NONE
            plan.changed.add(index)
