"""Private copies of a mux's tables, or an agent's, to try a packet on: what it changes there, nobody sees.

Of the configuration alone, or of a live daemon by its control socket, in either driver.  Of a live one only the rows
that one packet can meet are asked for; the copy's other pages are never touched, so it costs as little as they do.
"""

import base64
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import numpy as np

from lbmux.control.config import Config, Service
from lbmux.control.control_socket import ask
from lbmux.control.moment import Moment
from lbmux.control.mux_tables import ETHERNET_MTU, MuxTables, sizes_for
from lbmux.control.neighbours import NextHop
from lbmux.datapath.tables import BUCKET_BYTES, PADDING, RULE, SLOT, VERSION, Sizes
from lbmux.errors import ControlError
from lbmux.targets.regions import Tables

MOST_BYTES = 1 << 16
PLACEHOLDER_MAC = 0x02
WHOLE = {"mux": ("settings", "names", "services", "backends"), "agent": ("settings", "names", "endpoints")}
ONE = {"mux": "a mux", "agent": "an agent"}


def of_configuration(config: Config) -> Moment:
    """Every next hop is a placeholder; the outer source is the first mux of the file, or 0.0.0.0 (::)."""
    mux = MuxTables(Tables.allocate(sizes_for(config)), *config.muxes, IPv4Address(0), IPv6Address(0))
    mux.commit(mux.plan(config))
    for destination in mux.destinations():
        mux.set_next_hop(destination, NextHop(0, PLACEHOLDER_MAC, PLACEHOLDER_MAC, ETHERNET_MTU))
    return Moment.of_mux(mux)


@dataclass
class LiveCopy:
    """Of the mux or agent that listens at ``path``: all that is known of one VIP."""

    path: Path
    moment: Moment
    interfaces: dict[int, str]

    @classmethod
    def of(cls, path: Path, vip: str, program: str = "mux") -> "LiveCopy":
        """ControlError where nobody answers, or not such a program, or one of another version."""
        outline = ask(path, "outline", vip=vip)
        if outline["program"] != program:
            raise ControlError(path, f"{ONE[outline['program']]} listens there: name {ONE[program]}'s socket")
        if outline["tables"] != VERSION:
            raise ControlError(path, f"the {program} is of another version: use the lbmux that it runs with")
        services = tuple(Service.model_validate(service) for service in outline["services"])
        rows = {(service, backend): row for service, backend, row in outline["rows"]}
        interfaces = {int(index): name for index, name in outline["interfaces"].items()}
        tables = Tables.allocate(Sizes(**outline["sizes"]))
        return cls(path, Moment(tables, services, rows, is_agent=program == "agent"), interfaces)

    def read_configuration(self) -> None:
        """Settings, names, services and backends; of an agent, endpoints."""
        for region in WHOLE[self.moment.program]:
            self._read(region, 0, self.moment.tables.sizes.regions()[region] - PADDING)

    def read_slots(self, first: int, count: int) -> None:
        self._read("slots", first * SLOT.itemsize, count * SLOT.itemsize)

    def read_rules(self, first: int, count: int) -> None:
        """A service's access list."""
        self._read("rules", first * RULE.itemsize, count * RULE.itemsize)

    def read_bucket(self, at: int) -> None:
        """The bucket that begins ``at`` so many bytes of the flow table."""
        self._read("flows", at, BUCKET_BYTES)

    def is_current(self) -> bool:
        """Whether the mux's settings are still those that were read: no configuration came into force meanwhile."""
        settings = self.moment.tables.memory["settings"]
        length = self.moment.tables.settings.nbytes
        return self._ask("settings", 0, length) == settings[:length].tobytes()

    def _read(self, region: str, at: int, length: int) -> None:
        memory = self.moment.tables.memory[region]
        for first in range(at, at + length, MOST_BYTES):
            data = self._ask(region, first, min(MOST_BYTES, at + length - first))
            memory[first : first + len(data)] = np.frombuffer(data, np.uint8)

    def _ask(self, region: str, at: int, length: int) -> bytes:
        text: Any = ask(self.path, "memory", region=region, at=at, length=length)
        return base64.b64decode(text)
