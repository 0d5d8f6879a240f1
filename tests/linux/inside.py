"""A mux's tables with a configuration and flows in them, and an agent's, as `show` and `explain` look at them."""

from ipaddress import IPv4Address
from typing import Any

from lbmux.addresses import mac_to_int
from lbmux.config.models import Config
from lbmux.linux.next_hops import NextHop
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.agent_tables import sizes_for as agent_sizes
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from tests.datapath.craft import SYN, Craft, tunnelled
from tests.datapath.harness import Frames, allocated

LOCAL = IPv4Address("10.0.1.2")
MAC = mac_to_int("02:00:00:00:00:09")
CONFIG: dict[str, Any] = {
    "muxes": [str(LOCAL)],
    "maglev": {"size": 251},
    "flows": {"limit": 4096},
    "idle": {"untrusted_s": 3600, "tcp_s": 3600},
    "services": [
        {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": [
            {"name": "h1", "dip": "10.1.1.2", "port": 8080}, {"name": "h2", "dip": "10.1.2.2", "weight": 2},
        ]},
        {"name": "dns", "vip": "192.0.2.2", "protocol": "udp", "port": 53, "backends": [
            {"name": "h1", "dip": "10.1.1.2"},
        ]},
    ],
}  # fmt: skip


class Inside:
    """A mux: ``workers`` share its tables, the last of them as user space does behind the kernel."""

    def __init__(self, config: dict[str, Any] = CONFIG, workers: int = 2, resolved: bool = True) -> None:
        read = Config.model_validate(config)
        self.tables = allocated(sizes_for(read, workers))
        self.mux = MuxTables(self.tables, LOCAL)
        self.mux.commit(self.mux.plan(read))
        for destination in self.mux.destinations() if resolved else ():
            self.mux.set_next_hop(destination, NextHop(1, MAC, MAC, 1500))
        self.now = now_ticks()

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot.of_mux(self.mux)

    def send(self, *crafts: Craft, worker: int = 0, before_ticks: int = 0) -> Frames:
        frames = Frames([craft.frame() for craft in crafts])
        Worker(self.tables, worker).forward(frames, (self.now - before_ticks) & 0xFFFFFFFF)
        return frames


def client(port: int = 40000, host: int = 7, **fields: Any) -> Craft:
    return Craft(source=bytes([198, 51, 100, host]), source_port=port, **fields)


def dns(port: int = 5353) -> Craft:
    return client(port, destination=bytes([192, 0, 2, 2]), destination_port=53, protocol=17)


def agent_with_a_flow(config: dict[str, Any] = CONFIG, port: int = 80, host: str = "10.1.1.2") -> Snapshot:
    """Return the agent of a host that got one packet of a client from the mux."""
    read, own = Config.model_validate(config), IPv4Address(host)
    agent = AgentTables(allocated(agent_sizes(read)), [own], [], "nat")
    agent.commit(agent.plan(read))
    inner = client(40000, flags=SYN, destination_port=port).packet()
    Worker(agent.tables).inbound(Frames([tunnelled(inner, LOCAL.packed, own.packed)]), now_ticks())
    return Snapshot.of_agent(agent)
