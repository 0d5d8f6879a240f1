"""When a backend dies, the clients of its connections are probed, each once and at a bounded rate."""

import asyncio
import copy
import time
from collections.abc import Iterable
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP

from lbmux.addresses import port_to_wire
from lbmux.config.models import Config
from lbmux.config.slowpath_models import SlowPath
from lbmux.daemons.challenge_ack import ChallengeAckProbe
from lbmux.slowpath.mux_output import BY_ROUTE, Sent
from tests.datapath.craft import ACK, FIN
from tests.linux.inside import CONFIG, Inside, client, dns

COMPILED_S = 30
"""Compile the functions of the flow table before the first use."""


class Mux(Inside):
    """``web`` has two backends, of which h1 can die."""

    def __init__(self, **of_web: Any) -> None:
        web, *others = CONFIG["services"]
        self.config = CONFIG | {"services": [web | of_web, *others]}
        super().__init__(self.config)
        self.sent: list[bytes] = []
        self.challenge_ack_probe = ChallengeAckProbe(lambda: self.snapshot, self.take)

    def take(self, sent: Iterable[Sent]) -> None:
        for one in sent:
            assert one.interface == BY_ROUTE
            self.sent.append(one.data)

    def without_h1(self) -> None:
        config = copy.deepcopy(self.config)
        config["services"][0]["backends"].pop(0)
        self.mux.commit(self.mux.plan(Config.model_validate(config)))

    def ports_at_h1(self, ports: Iterable[int]) -> list[int]:
        """Return the ports of clients at h1; each has sent one packet."""
        row, ports = self.mux.rows["web", "h1"], list(ports)
        targets = self.send(*(client(port, flags=ACK) for port in ports)).target[: len(ports)].tolist()
        return [port for port, target in zip(ports, targets, strict=True) if target == row]

    def prompted(
        self, expected: int = 0, packets_per_s: int = 1_000_000, seconds: float = 0.1, second_chance: bool = True
    ) -> list[int]:
        """The client's ports, after h1 has gone: once there are as many as ``expected``, and for some seconds more."""

        async def work() -> None:
            self.without_h1()
            self.challenge_ack_probe.on_commit(
                SlowPath(packets_per_s=packets_per_s, second_chance_max_hosts=2, second_chance=second_chance)
            )
            deadline = time.monotonic() + COMPILED_S
            while len(self.sent) < expected and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            await asyncio.sleep(seconds)

        asyncio.run(work())
        return [int(IP(packet)[TCP].dport) for packet in self.sent]


@pytest.fixture(scope="module", autouse=True)
def walk_is_compiled() -> None:
    """Wait long enough for a probe to be sent, to show that none is."""
    mux = Mux()
    mux.ports_at_h1(range(40000, 40020))
    assert mux.prompted(1)


def test_only_clients_of_a_dead_backend_are_probed() -> None:
    mux = Mux()
    mux.send(dns())
    lost = mux.ports_at_h1(range(40000, 40060))
    assert 5 < len(lost) < 55
    assert sorted(mux.prompted(len(lost))) == lost
    packet = IP(mux.sent[0])
    assert (packet.src, packet.dst, packet[TCP].sport, str(packet[TCP].flags)) == ("192.0.2.1", "198.51.100.7", 80, "A")


def test_a_flow_whose_packets_come_by_several_workers_is_one() -> None:
    mux = Mux()
    (first, *_) = mux.ports_at_h1(range(40000, 40020))
    mux.send(client(first, flags=ACK), worker=1)
    assert mux.prompted(1).count(first) == 1


def test_a_closing_or_long_idle_connection_is_not_probed() -> None:
    mux = Mux(idle={"tcp_s": 1, "untrusted_s": 1, "fin_s": 1})
    closing, idle, *others = mux.ports_at_h1(range(40000, 40060))
    mux.send(client(closing, flags=FIN | ACK))
    flows = mux.tables.flows
    flows["seen"][flows["ports"] & 0xFFFF == port_to_wire(idle)] -= 2**20
    assert sorted(mux.prompted(len(others))) == others


@pytest.mark.parametrize("of_web", [{"on_down": "rehash"}, {"protocol": "udp"}])
def test_no_client_is_probed_without_on_down_reset_or_without_flows(of_web: dict[str, Any]) -> None:
    mux = Mux(**of_web)
    mux.send(*(client(port, flags=ACK, protocol=17 if "protocol" in of_web else 6) for port in range(40000, 40020)))
    assert mux.prompted() == []


def test_no_client_is_probed_without_second_chance() -> None:
    mux = Mux()
    assert mux.ports_at_h1(range(40000, 40020))
    assert mux.prompted(second_chance=False) == []


def test_probes_stay_within_the_slow_path_s_rate() -> None:
    """Half of 400 packets per second, and each connection may come back from two hosts."""
    mux = Mux()
    lost = mux.ports_at_h1(range(40000, 40400))
    begun = time.monotonic()
    probes = mux.prompted(11, packets_per_s=400, seconds=0.4)
    assert 10 < len(probes) <= 100 * (time.monotonic() - begun) + 2 < len(lost) + 30


def test_clients_of_a_service_without_a_backend_are_left_alone_until_it_has_one_again() -> None:
    """Wait until the backends return, then probe the clients whose backend did not (challenge ACK)."""
    mux = Mux()
    lost = mux.ports_at_h1(range(40000, 40060))
    assert 5 < len(lost) < 55

    def put_in_force(*kept: str) -> None:
        config = copy.deepcopy(mux.config)
        config["services"][0]["backends"] = [one for one in config["services"][0]["backends"] if one["name"] in kept]
        mux.mux.commit(mux.mux.plan(Config.model_validate(config)))
        mux.challenge_ack_probe.on_commit(SlowPath(second_chance_max_hosts=2))

    async def work() -> None:
        put_in_force()
        await asyncio.sleep(0.1)
        put_in_force()  # a reload meanwhile changes nothing
        await asyncio.sleep(0.1)
        assert mux.sent == []
        put_in_force("h2")
        deadline = time.monotonic() + COMPILED_S
        while len(mux.sent) < len(lost) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        put_in_force("h1", "h2")
        await asyncio.sleep(0.1)

    asyncio.run(work())
    assert sorted(int(IP(packet)[TCP].dport) for packet in mux.sent) == lost


def test_clients_of_backends_that_all_came_back_are_left_alone() -> None:
    mux = Mux()
    assert mux.ports_at_h1(range(40000, 40060))

    async def work() -> None:
        for backends in ([], mux.config["services"][0]["backends"]):
            config = copy.deepcopy(mux.config)
            config["services"][0]["backends"] = backends
            mux.mux.commit(mux.mux.plan(Config.model_validate(config)))
            mux.challenge_ack_probe.on_commit(SlowPath(second_chance_max_hosts=2))
            await asyncio.sleep(0.1)

    asyncio.run(work())
    assert mux.sent == []
