"""A host agent's tables, planned and put in force."""

from ipaddress import IPv4Address
from typing import Any

import pytest

from lbmux.config.models import Config
from lbmux.config.slowpath_models import SlowPath
from lbmux.datapath.tables import GONE, UP, Sizes
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import TableError
from lbmux.tables.agent_tables import ENDPOINTS, AgentTables, sizes_for
from lbmux.tables.host_probes import MOST_VIPS
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables
from tests.datapath.craft import ACK, SYN, Craft, tunnelled
from tests.datapath.harness import Frames

HOST, ELSEWHERE = "10.1.0.1", "10.1.0.2"
VIPS = [bytes([192, 0, 2, number]) for number in range(10)]
MUX, OTHER_MUX, STRANGER = "10.0.1.2", "10.0.2.2", "10.0.9.9"


def packed(text: str) -> bytes:
    return IPv4Address(text).packed


def service(number: int, dip: str = HOST, port: int = 8080, host: str | None = None, **more: Any) -> dict[str, Any]:
    """A service at VIP 192.0.2.NUMBER, served here and elsewhere."""
    backends = [{"dip": dip, "port": port, "host": host}, {"dip": ELSEWHERE}]
    return {
        "name": f"s{number}", "vip": f"192.0.2.{number}", "protocol": "tcp", "port": 80, "backends": backends,
    } | more  # fmt: skip


def config(*services: dict[str, Any], muxes: tuple[str, ...] = (MUX,), probes: bool = False) -> Config:
    """``probes``: whether each VIP has a row for the muxes' probes beside its services' rows."""
    rest = {"muxes": muxes, "flows": {"limit": 4096}, "tunnel": {"probes": probes}}
    return Config.model_validate({"services": services, **rest})


class Agent:
    def __init__(
        self, first: Config, mode: str = "nat", sizes: Sizes | None = None, muxes: tuple[str, ...] = ()
    ) -> None:
        self.tables = Tables.allocate(sizes or sizes_for(first))
        self.worker = Worker(self.tables)
        self.mode, self.muxes = mode, [IPv4Address(address) for address in muxes]
        self.restart()
        self.load(first)

    def restart(self) -> None:
        """A new process on the same tables."""
        self.control = AgentTables(self.tables, [IPv4Address(HOST)], self.muxes, self.mode)

    def load(self, new: Config) -> None:
        self.control.commit(self.control.plan(new))

    def inbound(self, vip: int, mux: str = MUX, to: str = HOST, **fields: Any) -> tuple[Verdict, bytes, int]:
        """(verdict, the delivered packet's destination and port)"""
        inner = Craft(destination=VIPS[vip], **{"flags": SYN} | fields).packet()
        batch = Frames([tunnelled(inner, packed(mux), packed(to))])
        self.worker.inbound(batch, 1)
        ((verdict, _, frame),) = batch.results()
        return verdict, frame[30:34], int.from_bytes(frame[36:38], "big")

    def outbound(self, dip: str = HOST, port: int = 8080, client_port: int = 40000) -> tuple[Verdict, bytes, int]:
        """(verdict, the reply's source and port)"""
        reply = Craft(packed(dip), Craft().source, source_port=port, destination_port=client_port)
        batch = Frames([reply.frame()])
        self.worker.outbound(batch, 1)
        ((verdict, _, frame),) = batch.results()
        return verdict, frame[26:30], int.from_bytes(frame[34:36], "big")


def test_there_and_back() -> None:
    agent = Agent(config(service(1)))
    assert agent.inbound(1) == (Verdict.DELIVERED, packed(HOST), 8080)
    assert agent.outbound() == (Verdict.REPLIED, VIPS[1], 80)


def test_mode_local_keeps_addresses() -> None:
    agent = Agent(config(service(1)), mode="local")
    assert agent.inbound(1) == (Verdict.DELIVERED, VIPS[1], 80)
    assert agent.outbound()[0] == Verdict.NOT_TRANSLATED


def test_only_what_this_host_serves_is_taken() -> None:
    agent = Agent(config(service(1), service(2, dip="10.1.0.3")))
    assert agent.inbound(2)[0] == Verdict.NO_LOCAL_BACKEND
    assert [(s.name, str(b.dip)) for s, b in agent.control.served] == [("s1", HOST)]


def test_a_dip_behind_another_host_address() -> None:
    """The DIP is a virtual machine's: packets are tunnelled to the host and delivered to the DIP."""
    agent = Agent(config(service(1, dip="10.7.0.1", host=HOST)))
    assert agent.inbound(1) == (Verdict.DELIVERED, packed("10.7.0.1"), 8080)
    assert agent.outbound("10.7.0.1") == (Verdict.REPLIED, VIPS[1], 80)


def test_only_configured_muxes_are_accepted() -> None:
    agent = Agent(config(service(1)), muxes=(OTHER_MUX,))
    assert [agent.inbound(1, mux)[0] for mux in (MUX, OTHER_MUX, STRANGER)] == [
        Verdict.DELIVERED, Verdict.DELIVERED, Verdict.NOT_A_MUX,
    ]  # fmt: skip
    agent.load(config(service(1), muxes=(STRANGER,)))
    assert [agent.inbound(1, mux)[0] for mux in (MUX, OTHER_MUX, STRANGER)] == [
        Verdict.NOT_A_MUX, Verdict.DELIVERED, Verdict.DELIVERED,
    ]  # fmt: skip


def test_only_tunnels_that_end_here_are_taken() -> None:
    assert Agent(config(service(1))).inbound(1, to=ELSEWHERE)[0] == Verdict.NOT_TUNNELLED


def test_two_vips_of_one_server() -> None:
    agent = Agent(config(service(1), service(2)))
    agent.inbound(1, source_port=1001)
    agent.inbound(2, source_port=1002)
    assert agent.outbound(client_port=1001)[1] == VIPS[1]
    assert agent.outbound(client_port=1002)[1] == VIPS[2]


def test_a_reload_keeps_rows_and_flows() -> None:
    agent = Agent(config(service(1), service(2)))
    agent.inbound(2)
    rows = agent.tables.backend_identities[:2].tolist()
    agent.load(config(service(4), service(3), service(2), service(1)))
    assert agent.tables.backend_identities[:2].tolist() == rows
    assert agent.outbound()[1] == VIPS[2]


def test_a_removed_service_is_gone_for_packets_and_replies() -> None:
    agent = Agent(config(service(1), service(2)))
    agent.inbound(1)
    agent.load(config(service(2)))
    assert agent.inbound(1)[0] == Verdict.NO_LOCAL_BACKEND
    assert agent.outbound()[0] == Verdict.UNKNOWN_REPLY
    assert sorted(agent.tables.endpoints["state"][:2].tolist()) == [GONE, UP]


def test_a_service_that_comes_back_has_its_flows() -> None:
    agent = Agent(config(service(1), service(2)))
    agent.inbound(1)
    agent.load(config(service(2)))
    agent.load(config(service(1), service(2)))
    assert agent.outbound()[1] == VIPS[1]


def test_a_row_that_gets_a_new_owner_gets_a_new_generation() -> None:
    """Otherwise a reply of an old flow would have the new owner's VIP."""
    agent = Agent(config(service(1), service(2)), sizes=Sizes(64, 16, 16, 3, 64, endpoints=3))
    agent.inbound(1)
    agent.load(config(service(2)))
    agent.load(config(service(2), service(3)))
    assert agent.tables.endpoints["generation"].tolist() == [1, 0, 0]
    assert agent.outbound()[0] == Verdict.UNKNOWN_REPLY
    assert agent.inbound(3)[0] == Verdict.DELIVERED
    assert agent.outbound()[1] == VIPS[3]


def test_a_new_process_on_the_same_tables_keeps_flows() -> None:
    agent = Agent(config(service(1), service(2)))
    agent.inbound(2)
    agent.restart()
    agent.load(config(service(2), service(1)))
    assert agent.outbound()[1] == VIPS[2]


@pytest.mark.parametrize(
    ("sizes", "table"),
    [
        (Sizes(64, services=2, slots=16, backends=8, buckets=64, endpoints=8), "services"),
        (Sizes(64, services=16, slots=16, backends=2, buckets=64, endpoints=2), "endpoints"),
        (Sizes(32, services=16, slots=16, backends=8, buckets=64, endpoints=8), "addresses"),
    ],
    ids=["services", "endpoints", "addresses"],
)
def test_a_configuration_that_does_not_fit_changes_nothing(sizes: Sizes, table: str) -> None:
    agent = Agent(config(service(1)), sizes=sizes)
    before = {name: memory.copy() for name, memory in agent.tables.memory.items()}
    with pytest.raises(TableError) as caught:
        agent.control.plan(config(*(service(number, port=8000 + number) for number in range(1, 5))))
    assert caught.value.table == table
    assert f"capacity {caught.value.limit}; a restart raises the capacity to " in str(caught.value)
    assert all((agent.tables.memory[name] == memory).all() for name, memory in before.items())
    assert agent.inbound(1)[0] == Verdict.DELIVERED


@pytest.mark.parametrize(
    ("configuration", "mode", "verdict"),
    [
        (config(service(1)), "nat", Verdict.UNKNOWN_CONNECTION),
        (config(service(1)), "local", Verdict.UNKNOWN_CONNECTION),
        (config(service(1, protocol="udp")), "nat", Verdict.DELIVERED),
        (config(service(1, dip="10.99.0.1", host=HOST)), "nat", Verdict.DELIVERED),
        (config(service(1)).model_copy(update={"slowpath": SlowPath(second_chance=False)}), "nat", Verdict.DELIVERED),
        (config(service(1, on_down="rehash")), "nat", Verdict.DELIVERED),
    ],
    ids=["TCP", "TCP in mode local", "UDP", "sockets elsewhere", "switched off", "rehashed"],
)
def test_the_host_is_asked_about_connections_that_are_not_known(
    configuration: Config, mode: str, verdict: Verdict
) -> None:
    agent = Agent(configuration, mode)
    protocol = 17 if configuration.services[0].protocol == "udp" else 6
    assert agent.inbound(1, flags=ACK, protocol=protocol)[0] == verdict


def services_of_one_host(count: int) -> list[dict[str, Any]]:
    """Every service has a VIP of its own, so as many VIPs as possible have a row for probes."""
    return [
        service(1, port=1 + number, name=f"s{number}", vip=f"192.1.{number // 250}.{number % 250 + 1}")
        for number in range(count)
    ]


@pytest.mark.parametrize(("probes", "most"), [(True, 1791), (False, 2047)])
def test_the_most_services_of_one_host(probes: bool, most: int) -> None:
    """One endpoint is for connections straight to a DIP."""
    muxes = tuple(f"10.2.{number // 250}.{number % 250 + 1}" for number in range(1024))
    agent = Agent(config(*services_of_one_host(most), muxes=muxes, probes=probes))
    assert (agent.tables.endpoints["state"] == UP).sum() == most + 1 + (MOST_VIPS if probes else 0) == ENDPOINTS
    with pytest.raises(TableError) as caught:
        agent.control.plan(config(*services_of_one_host(most + 1), probes=probes))
    assert (caught.value.table, caught.value.limit) == ("endpoints", ENDPOINTS)
