"""A mux's tables as a configuration makes them, for tests that ask the real data path."""

from ipaddress import ip_address
from typing import Any

from lbmux.config.models import Config
from lbmux.datapath.verdicts import Verdict
from lbmux.linux.next_hops import NextHop
from lbmux.slowpath.forwarder import TableForwarder
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from tests.datapath.harness import Frames, allocated
from tests.slowpath.golden import CLIENT, MUX, MUX6, VIP, VIP6

NAMES = ("b0", "b1", "b2", "b3")
INTERFACE = 7


def config(**changes: Any) -> Config:
    """Four backends for each family: web on TCP 80, dns on UDP 53.  New flows have room each."""
    services = [
        {
            "name": f"{name}{family}", "vip": VIP if family == 4 else VIP6, "protocol": protocol, "port": port,
            "backends": [
                {"name": backend, "dip": f"10.1.0.{at + 1}" if family == 4 else f"fd00:1::{at + 1}"}
                for at, backend in enumerate(NAMES)
            ],
        }
        for name, protocol, port in (("web", "tcp", 80), ("dns", "udp", 53))
        for family in (4, 6)
    ]  # fmt: skip
    base = {"maglev": {"size": 1009}, "flows": {"limit": 1 << 16}, "services": services}
    return Config.model_validate(base | changes)


class Mux:
    """Tables in force, a worker on them, and the forwarder under test."""

    def __init__(self, mtu: int = 1500, **changes: Any) -> None:
        self.config = config(**changes)
        self.tables = allocated(sizes_for(self.config, 2))
        self.control = MuxTables(self.tables, ip_address(MUX), ip_address(MUX6))
        self.control.commit(self.control.plan(self.config))
        for host in self.control.destinations():
            self.control.set_next_hop(host, NextHop(INTERFACE, 0x1, 0x2, mtu))
        self.worker = Worker(self.tables, 1)
        self.forwarder = TableForwarder(self.worker, now_ticks)

    def forward(self, *frames: bytes, by: int = 0) -> list[tuple[Verdict, int, bytes]]:
        """What the data path itself does with frames, as another worker than the forwarder's."""
        batch = Frames(frames)
        Worker(self.tables, by).forward(batch, now_ticks())
        return batch.results()


__all__ = ["CLIENT", "INTERFACE", "Mux", "config"]
