"""Holds a mux's tables: plans them from a configuration off the packet path, and puts plans in force between packets.

``plan`` computes the changes, mainly Maglev tables, and writes what no packet reads yet; it may run in a thread.
``commit`` writes the rest into the inactive copies and then switches.
"""

from collections.abc import Callable, Mapping

import numpy as np

from lbmux.addresses import Address, port_to_wire, to_pair
from lbmux.config.models import BackendKey, Config, Service, slots_of
from lbmux.datapath.tables import GONE, PACKET_RATE, SLOT, WAYS, Sizes
from lbmux.linux.next_hops import NextHop
from lbmux.tables.mux_contents import Contents, Plan
from lbmux.tables.mux_plan import Planner, changed_at
from lbmux.tables.mux_rows import is_special, price_of, set_route
from lbmux.tables.slot_allocation import Range
from lbmux.tables.slot_states import NO_TABLE, SlotStates
from lbmux.tables.table_limits import with_limit_after_restart
from lbmux.targets.regions import Tables, now_ticks

SOURCE_LINES = 1 << 16
"""4 MiB for known sources: with 100,000 of them, under one unknown source in thirty is taken for a known one."""
MOST_BACKENDS = 1 << 16
"""Slots and flows name a backend's row by 16 bits."""
KERNEL_SLOT_BYTES = 1 << 29
"""Slots that a kernel program can address."""


def power_of_two(at_least: int) -> int:
    return 1 << max(0, at_least - 1).bit_length()


def sizes_for(config: Config, workers: int = 1) -> Sizes:
    """Return sizes that leave room to grow: for twice the configuration's backends and Maglev tables.

    The flow table has two places a flow, so that nearly all of the limit can be used (see datapath.flows).
    """
    backends = sum(len(service.backends) for service in config.services)
    sizes = [slots_of(config, service) for service in config.services]
    largest = max(sizes, default=config.maglev.size)
    wanted = 2 * -(-sum(sizes) // largest) + 8
    tables = power_of_two(wanted)
    if tables * largest * SLOT.itemsize > KERNEL_SLOT_BYTES:
        tables = wanted
    names = sum(len(service.ports) for service in config.services)
    names += len({service.vip for service in config.services})
    names += sum(backend.server_id is not None for service in config.services for backend in service.backends)
    prefixes = sum(len(service.allow) + len(service.deny) + 1 for service in config.services)
    return Sizes(
        addresses=power_of_two(max(4096, 4 * names)),
        services=power_of_two(max(1024, len(config.services))),
        slots=max(tables * largest, 0 if config.maglev.size else Sizes.slots),
        backends=min(power_of_two(max(4096, 2 * backends)), MOST_BACKENDS),
        buckets=power_of_two(-(-2 * config.flows.limit // WAYS)),
        workers=workers,
        rules=power_of_two(max(4096, 4 * prefixes)),
        sources=SOURCE_LINES,
    )


class MuxTables:
    """Plans and commits the contents of one mux's tables."""

    def __init__(self, tables: Tables, *local: Address, clock: Callable[[], int] = now_ticks) -> None:
        """``local``: the sources of outer headers, one for each family of the hosts' addresses.

        ``clock``: the clock by which packets are forwarded, in ticks; by default the machine's.
        """
        self.tables, self._clock = tables, clock
        self.slots = SlotStates(tables, clock)
        self.local: dict[int, Address] = {address.version: address for address in reversed(local)}
        self._contents = Contents(
            lists={
                row: (int(service["rules"]), int(service["rule_count"]))
                for row, service in enumerate(tables.services[tables.active])
                if service["rule_count"]
            }
        )
        self._hops: dict[Address, NextHop | None] = {}
        self._freed: list[Range] = []
        self._ahead: Plan | None = None
        """The plan that has been written where no packet reads; another plan may have overwritten earlier ones."""

    @property
    def config(self) -> Config | None:
        """The configuration in force, if it is known."""
        return self._contents.config

    @property
    def rows(self) -> Mapping[BackendKey, int]:
        """The rows of backends by (service, backend) names."""
        return self._contents.rows

    @property
    def vips(self) -> Mapping[Address, int]:
        """The row of each VIP's usage."""
        return self._contents.vips

    def settle(self, now: int) -> None:
        """See SlotStates.settle."""
        self._freed += self.slots.settle(now)

    def start(self, has_flows: bool = False) -> None:
        """See SlotStates.start."""
        self._freed += self.slots.start(has_flows)

    def plan(self, config: Config) -> Plan:
        """Plan the tables for ``config``; what is in force does not change.  Raise TableError if it does not fit.

        Slots, access lists, services and the address map are written at once, where no packet reads before the commit.
        """
        planner = Planner(self.tables, self._contents, self.slots, self._freed, self._clock)
        with with_limit_after_restart(self.tables.sizes, config, sizes_for):
            plan = planner.plan(config, self.local, dict(self._hops))
        if not planner.gave_up_former:
            self._write_ahead(plan)
        return plan

    def _write_ahead(self, plan: Plan) -> None:
        """Write what no packet reads before the switch, unless it has been written."""
        if self._ahead is plan:
            return
        other = 1 - self.tables.active
        self.tables.addresses[other], self.tables.services[other] = plan.names, plan.services
        words = self.tables.slots.view(np.uint32)  # copying words is many times faster than copying fields
        for at, pairs in plan.slots:
            words[at : at + len(pairs)] = pairs.view(np.uint32)
        for at, rules in plan.rules:
            self.tables.rules[at : at + len(rules)] = rules
        self._ahead = plan

    def slots_moved(self, plan: Plan) -> dict[str, float]:
        """Return by service the share of its slots that get another backend with a plan; without those that stay.

        A table of another size moves all slots. Services that begin or end are left out.
        """
        before, planned, shares = self._contents.services, dict(plan.slots), dict[str, float]()
        for name, placed in plan.placed.items():
            if placed.row not in plan.changed or name not in before or before[name].row != placed.row:
                continue
            at, size = plan.places.get(placed.row, NO_TABLE)
            new = planned.get(at, self.tables.slots[at : at + size])["backend"]
            old, share = self.slots.pairs(placed.row)["backend"], 1.0
            if len(new) == len(old):
                share = np.count_nonzero((new != old) | plan.removed[old]) / max(1, size)
            if share:
                shares[name] = share
        return shares

    def commit(self, plan: Plan) -> None:
        """Put a plan in force.  Nothing that a packet may be reading is written before the switch."""
        assert plan.before is self._contents, "another plan has been put in force since this one was made"
        tables, row = self.tables, self.tables.settings[0]
        self._write_ahead(plan)
        self._write_backends(plan)
        self._write_rates(plan)
        tables.service_identities[list(plan.identities)] = list(plan.identities.values())
        other = 1 - tables.active
        row[f"salt{other}"] = plan.salt
        self._write_settings(plan)
        row["active"], self._ahead = other, None
        tables.backends["state"][plan.gone] = GONE
        before = {*map(self.slots.places.get, plan.changed), *map(self.slots.former.get, plan.changed)}
        after = {*map(plan.places.get, plan.changed), *map(plan.former.get, plan.changed)}
        self._freed = [place for place in before - after if place is not None]
        self.slots.commit(plan.places, plan.former, plan.began, plan.changed)
        self._contents = plan.contents

    def _write_backends(self, plan: Plan) -> None:
        """Write the planned rows of backends."""
        tables, rows, values = self.tables, plan.backend_rows, plan.backend_identities
        identities = tables.backend_identities[rows]
        for number in np.flatnonzero((identities != 0) & (identities != values)).tolist():
            self.slots.forget_row(int(tables.backends[rows[number]]["service"]), rows[number])
        tables.backends[rows], tables.backend_identities[rows] = plan.backend_contents, values

    def _write_rates(self, plan: Plan) -> None:
        """Write the rate limits of services that change. What their packets have used of a limit stays used."""
        self.tables.service_rates["price"][:, list(plan.identities)] = plan.prices
        self.tables.backend_rates["price"][plan.backend_rows] = plan.backend_prices

    def hold(self, service: Service, packets_per_s: float | None) -> None:
        """Hold a service to this many packets per second, or to its own limits only (None).

        A commit that changes the service ends that.
        """
        placed = self._contents.services.get(service.name)
        if placed is None:
            return
        own = price_of(service.packets_per_s)
        price = max(own, price_of(packets_per_s))
        self.tables.service_rates[PACKET_RATE, placed.row]["price"] = price
        row = self.tables.services[self.tables.active, placed.row]
        row["limited"] = price != 0 or service.new_flows_per_s is not None
        row["special"] = is_special(row)

    def _write_settings(self, plan: Plan) -> None:
        """Write the settings of all services."""
        row, limits, tunnel = self.tables.settings[0], plan.config.flows, plan.config.tunnel
        row["trusted_ways"] = max(1, round(WAYS * limits.trusted_share))
        row["untrusted_ways"] = max(1, round(WAYS * limits.untrusted_share))
        row["longest_idle"] = plan.longest_idle
        in_force = bool(self.slots.places)  # otherwise there is no flow yet that a change could have moved
        now = self._clock()
        row["tables_changed"] = changed_at(now) if in_force else (now - int(row["longest_idle"]) - 1) & 0xFFFFFFFF
        row["gue_port"], row["geneve_port"] = port_to_wire(tunnel.gue_port), port_to_wire(tunnel.geneve_port)
        row["any_port"] = plan.any_port

    def set_next_hop(self, destination: Address, hop: NextHop | None) -> None:
        """Set the next hop for packets to a host; None: its MAC address is not known."""
        self._hops[destination] = hop
        high, low = to_pair(destination)
        backends = self.tables.backends
        for row in np.flatnonzero((backends["remote_low"] == low) & (backends["remote_high"] == high)):
            set_route(backends[row], hop)

    def destinations(self) -> set[Address]:
        """Return the hosts that packets are tunnelled to."""
        services = self.config.services if self.config else ()
        return {backend.tunnel_to for service in services for backend in service.backends}
