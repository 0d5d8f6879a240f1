"""Private copies of a mux's or an agent's tables, on which a packet can run without side effects.

A copy is made from a configuration, or from a live daemon over its control socket, with either driver.  From a live
daemon only the rows that the packet can reach are read; other pages of the copy are never touched.
"""

import base64
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import numpy as np

from lbmux.api.answers import Layout
from lbmux.api.channel import ControlTarget, target_name
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetLayout, ReadMemory
from lbmux.config.models import Backend, Config, Service
from lbmux.datapath.tables import BUCKET_BYTES, NONE, PADDING, RULE, SLOT, SOURCES, VERSION, Sizes
from lbmux.errors import ControlError
from lbmux.linux.next_hops import NextHop
from lbmux.tables.mux_rows import ETHERNET_MTU
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.regions import Tables

MOST_BYTES = 1 << 16
PLACEHOLDER_MAC = 0x02
WHOLE = {"mux": ("settings", "addresses", "services", "backends"), "agent": ("settings", "addresses", "endpoints")}
ONE = {"mux": "a mux", "agent": "an agent"}


def of_configuration(config: Config) -> Snapshot:
    """Return a mux's tables for a configuration.

    Every next hop is a placeholder.  The outer source is the file's first mux of that family, or 0.0.0.0 (::).
    """
    mux = MuxTables(Tables.allocate(sizes_for(config)), *config.muxes, IPv4Address(0), IPv6Address(0))
    mux.commit(mux.plan(config))
    for destination in mux.destinations():
        mux.set_next_hop(destination, NextHop(0, PLACEHOLDER_MAC, PLACEHOLDER_MAC, ETHERNET_MTU))
    return Snapshot.of_mux(mux)


@dataclass
class LiveCopy:
    """A copy of what the mux or agent that at ``place`` has about one VIP."""

    place: ControlTarget
    snapshot: Snapshot
    interfaces: dict[int, str]
    vip: str
    layout: Layout
    """The layout before the tables were read."""

    @classmethod
    def of(cls, place: ControlTarget, vip: str, program: str = "mux") -> "LiveCopy":
        """Raise ControlError if no daemon answers, if it is another program, or if its tables have another version."""
        layout = ControlClient(place).ask(GetLayout(vip))
        if layout.program != program:
            raise ControlError(target_name(place), f"{ONE[layout.program]} listens there: give {ONE[program]}'s socket")
        if layout.tables != VERSION:
            raise ControlError(target_name(place), f"the {program} runs another version: use an lbmux of that version")
        services = tuple(_service(service) for service in layout.services)
        rows = {(service, backend): row for service, backend, row in layout.rows}
        snapshot = Snapshot(Tables.allocate(Sizes(**layout.sizes)), services, rows, is_agent=program == "agent")
        return cls(place, snapshot, layout.interfaces, vip, layout)

    def read_configuration(self) -> None:
        """Read the settings, the address map, and the services and backends or, of an agent, the endpoints."""
        for region in WHOLE[self.snapshot.program]:
            self._read(region, 0, self.snapshot.tables.sizes.regions()[region] - PADDING)

    def read_service(self, row: int, hashed: int, sources: int) -> None:
        """Read the rest of a service: identity, access list, rate state, and the slot of a hash in its Maglev table and
        in the former one."""
        tables = self.snapshot.tables
        service = tables.services[tables.active][row]
        self._read("identities", row * tables.service_identities.itemsize, tables.service_identities.itemsize)
        self._read("rules", int(service["rules"]) * RULE.itemsize, int(service["rule_count"]) * RULE.itemsize)
        for table, size in (("slots", "size"), ("former", "former_size")):
            if service[size] and service[table] != NONE:
                slot = int(service[table]) + (hashed * int(service[size]) >> 32)
                self._read("slots", slot * SLOT.itemsize, SLOT.itemsize)
        if service["limited"]:
            self._read("rates", 0, tables.service_rates.nbytes + tables.backend_rates.nbytes)
            self._read("sources", sources * SOURCES.itemsize, SOURCES.itemsize)

    def read_bucket(self, at: int) -> None:
        """Read the bucket at byte offset ``at`` of the flow table."""
        self._read("flows", at, BUCKET_BYTES)

    def is_current(self) -> bool:
        """Return whether layout and settings are unchanged since they were read, so that the copy is consistent."""
        settings = self.snapshot.tables.memory["settings"]
        length = self.snapshot.tables.settings.nbytes
        same = self._ask("settings", 0, length) == settings[:length].tobytes()
        return same and ControlClient(self.place).ask(GetLayout(self.vip)) == self.layout

    def _read(self, region: str, at: int, length: int) -> None:
        memory = self.snapshot.tables.memory[region]
        for first in range(at, at + length, MOST_BYTES):
            data = self._ask(region, first, min(MOST_BYTES, at + length - first))
            memory[first : first + len(data)] = np.frombuffer(data, np.uint8)

    def _ask(self, region: str, at: int, length: int) -> bytes:
        return base64.b64decode(ControlClient(self.place).ask(ReadMemory(region, at, length)))


def _service(fields: dict[str, Any]) -> Service:
    """Return the service as the mux runs it, not validated: a running mux may have states that no file can describe."""
    backends = (Backend.model_construct(**one | {"dip": ip_address(one["dip"])}) for one in fields["backends"])
    port = 0 if fields["port"] == "any" else fields["port"]
    ends: dict[str, Any] = {"vip": ip_address(fields["vip"]), "port": port, "backends": tuple(backends)}
    lists = {which: tuple(map(ip_network, fields[which])) for which in ("allow", "deny")}
    return Service.model_construct(**fields | ends | lists)
