"""Explanations of frames at an agent agree with its data path, and explaining changes nothing."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from lbmux.config.models import Config
from lbmux.daemons.drivers import Driver
from lbmux.daemons.status_handlers import StatusHandlers
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import ControlError
from lbmux.slowpath.tunnels import Ports
from lbmux.tables.agent_tables import AgentTables, sizes_for
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables, now_ticks
from lbmux.tools.explain_agent import Passage, explain_at_agent
from lbmux.tools.parse_reasons import PARSE_REASONS
from tests.api.answering import ServerThread
from tests.datapath.craft import RST, SYN, Craft, Stream, tunnelled
from tests.datapath.harness import Frames
from tests.linux.inside import CONFIG, LOCAL, client, dns

OWN, VIP6 = bytes([10, 1, 1, 2]), "2001:db8::1"
MORE: dict[str, Any] = CONFIG | {
    "services": [
        *CONFIG["services"],
        {"name": "web6", "vip": VIP6, "protocol": "tcp", "port": 80, "backends": [
            {"name": "h1", "dip": "2001:db8:1:1::2", "host": "10.1.1.2", "port": 8080},
        ]},
    ]
}  # fmt: skip


class AgentHost:
    """An agent's tables behind a control socket; ``pass_`` takes a frame through the agent's data path."""

    def __init__(self, path: Path, mode: str = "nat") -> None:
        self.path, config = path, Config.model_validate(MORE)
        self.agent = AgentTables(Tables.allocate(sizes_for(config, 2)), [IPv4Address(OWN)], [], mode)
        self.agent.commit(self.agent.plan(config))
        driver = Driver("agent", "eth0", self.agent.tables, 0, "tun")
        runtime = {"interface": "eth0", "addresses": [str(IPv4Address(OWN))]}
        showing = StatusHandlers(lambda: Snapshot.of_agent(self.agent), driver, path, runtime)
        server = ServerThread(path, showing.handlers())
        self.answers, self.close = server.answers, server.close

    def pass_(self, frame: bytes, is_reply: bool = False, worker: int = 1) -> tuple[Passage, int]:
        """Return the frame as the agent's loop would pass it on, and the endpoint or -1."""
        frames, own = Frames([frame]), Worker(self.agent.tables, worker)
        (own.outbound if is_reply else own.inbound)(frames, now_ticks())
        ((verdict, target, after),) = frames.results()
        left = after if verdict.kind == "send" else None
        return Passage(frame, verdict, left, is_reply, Ports.of(self.agent.tables)), target

    def explain(self, passage: Passage) -> dict[str, str]:
        return {step.step: step.found for step in explain_at_agent(passage, self.path)}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AgentHost]:
    host = AgentHost(tmp_path / "agent.sock")
    yield host
    host.close()


def by_mux(craft: Craft, mux: bytes = LOCAL.packed) -> bytes:
    return tunnelled(craft.packet(), mux, OWN)


def opened(port: int = 40000) -> Craft:
    return client(port, flags=SYN)


def reply(port: int = 40000) -> bytes:
    ends = {"source": OWN, "destination": bytes([198, 51, 100, 7])}
    return Craft(**ends, source_port=8080, destination_port=port).frame()  # type: ignore[arg-type]


def test_each_step_of_a_request(host: AgentHost) -> None:
    passage, target = host.pass_(by_mux(opened()))
    steps = host.explain(passage)
    assert list(steps) == ["outer header", "match", "endpoint", "flow", "translation"]
    outer = "10.0.1.2 > 10.1.1.2 protocol 4, 60 bytes"
    assert steps["outer header"] == f"{outer}: 10.0.1.2 is a mux, 10.1.1.2 is this host's"
    assert steps["match"] == f"VIP 192.0.2.1:80/tcp is endpoint {target}"
    assert steps["endpoint"].startswith(f"{target}, web/h1: 192.0.2.1:80 translates to 10.1.1.2:8080")
    flow = rf"untrusted, idle for \d+\.\d s, endpoint {target} \(web/h1\)"
    assert re.fullmatch(flow, steps["flow"])
    assert steps["translation"] == "192.0.2.1:80 to 10.1.1.2:8080"


def test_each_step_of_its_reply(host: AgentHost) -> None:
    _, target = host.pass_(by_mux(opened()), worker=0)
    passage, _ = host.pass_(reply(), is_reply=True)
    steps = host.explain(passage)
    assert list(steps) == ["match", "flow", "endpoint", "translation"]
    assert steps["match"] == "DIP 10.1.1.2:8080/tcp is a backend's of this host"
    assert steps["flow"].startswith("untrusted") and steps["endpoint"].startswith(f"{target}, web/h1")
    assert steps["translation"] == "10.1.1.2:8080 to 192.0.2.1:80"


def test_a_reply_without_an_entry(host: AgentHost) -> None:
    host.pass_(by_mux(opened()))
    passage, _ = host.pass_(reply(40001), is_reply=True)
    assert passage.verdict == Verdict.UNKNOWN_REPLY
    assert list(host.explain(passage)) == ["match", "flow"]
    assert host.explain(passage)["flow"].startswith("no entry, so user space checks the host's sockets")
    elsewhere, _ = host.pass_(Craft(source=OWN, source_port=22).frame(), is_reply=True)
    assert host.explain(elsewhere) == {"match": "no backend of this host answers from 10.1.1.2:22/tcp"}


@pytest.mark.parametrize(("mode", "match"), [
    ("nat", "DIP 10.1.1.2:8080/tcp is a backend's of this host"), ("local", "VIP 192.0.2.1:80/tcp is on this host"),
])  # fmt: skip
def test_a_reset_that_was_held_back(tmp_path: Path, mode: str, match: str) -> None:
    """The stack does not know the connection, whose flow entry has gone by then."""
    host = AgentHost(tmp_path / "other.sock", mode)
    try:
        host.pass_(by_mux(opened()))
        source, port = (OWN, 8080) if mode == "nat" else (bytes([192, 0, 2, 1]), 80)
        client_end = {"destination": bytes([198, 51, 100, 7]), "destination_port": 40000}
        refusal = Craft(source=source, source_port=port, flags=RST, **client_end).frame()  # type: ignore[arg-type]
        passage, _ = host.pass_(refusal, is_reply=True)
        assert passage.verdict == Verdict.RESET_SUPPRESSED
        steps = host.explain(passage)
    finally:
        host.close()
    assert list(steps) == ["match", "flow", "hint"] and steps["match"] == match
    assert steps["flow"].startswith("removed") and steps["hint"].startswith("the mux tries other hosts")


def test_a_connection_that_is_not_known_has_no_entry(host: AgentHost) -> None:
    passage, _ = host.pass_(by_mux(client(40001)))
    steps = host.explain(passage)
    assert passage.verdict == Verdict.UNKNOWN_CONNECTION
    assert steps["flow"] == "no entry" and "the agent checks the host's sockets" in steps["endpoint"]
    assert "translation" not in steps


def test_a_packet_in_udp_is_known_by_its_tunnels_port(host: AgentHost) -> None:
    gue = IP(src=str(LOCAL), dst="10.1.1.2") / UDP(sport=50000, dport=6080) / client(40001).packet()
    passage, target = host.pass_(bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / gue))
    assert passage.verdict == Verdict.UNKNOWN_CONNECTION
    assert host.explain(passage)["match"] == f"VIP 192.0.2.1:80/tcp is endpoint {target}"


def test_ipv6_in_ipv4(host: AgentHost) -> None:
    inner = Craft(
        source=IPv6Address("2001:db8:100::2").packed, destination=IPv6Address(VIP6).packed, source_port=4000, flags=SYN
    )
    passage, _ = host.pass_(by_mux(inner))
    assert host.explain(passage)["translation"] == f"[{VIP6}]:80 to [2001:db8:1:1::2]:8080"


def test_with_the_vip_on_the_host_no_address_is_translated(tmp_path: Path) -> None:
    host = AgentHost(tmp_path / "agent.sock", "local")
    passage, _ = host.pass_(by_mux(dns()))
    steps = host.explain(passage)
    host.close()
    assert steps["endpoint"].endswith("192.0.2.2:53 is on this host, no translation")
    assert (steps["flow"], steps["translation"]) == ("no entry", "none, 192.0.2.2:53 is kept")


@pytest.mark.parametrize(
    ("frame", "verdict", "step", "said"),
    [
        (by_mux(opened(), bytes([10, 0, 9, 9])), Verdict.NOT_A_MUX, "outer header", "its source is not a mux"),
        (opened().frame(), Verdict.NOT_TUNNELLED, "outer header", "not a tunnel packet"),
        (by_mux(client(destination_port=99)), Verdict.NO_LOCAL_BACKEND, "match", "no backend of this host has the VIP"),
        (by_mux(client(protocol=1)), Verdict.ICMP, "parse", PARSE_REASONS[Verdict.ICMP]),
        (by_mux(client(fragment=0x2000)), Verdict.FRAGMENT, "parse", PARSE_REASONS[Verdict.FRAGMENT]),
        (by_mux(opened())[:20], Verdict.TRUNCATED, "outer header", PARSE_REASONS[Verdict.TRUNCATED]),
    ],
)
def test_says_which_step_ended_it(host: AgentHost, frame: bytes, verdict: Verdict, step: str, said: str) -> None:
    passage, _ = host.pass_(frame)
    steps = host.explain(passage)
    assert passage.verdict == verdict
    assert said in steps[step] and list(steps)[-1] == ("hint" if verdict.kind == "drop" else step)


@pytest.mark.slow
def test_agrees_with_the_data_path_about_any_frame(host: AgentHost) -> None:
    met = set[Verdict]()
    destinations = [(bytes([192, 0, 2, 1]), 6, 80), (bytes([192, 0, 2, 2]), 17, 53), (IPv6Address(VIP6).packed, 6, 80)]
    inner = (craft for craft in islice(Stream(3, destinations).frames(), 40) if len(craft) > 14)
    for frame in (tunnelled(one[14:], LOCAL.packed, OWN) for one in inner):
        passage, target = host.pass_(frame)
        steps = host.explain(passage)
        met.add(passage.verdict)
        if passage.verdict in PARSE_REASONS:
            assert steps.get("parse", steps["outer header"]).endswith(PARSE_REASONS[passage.verdict])
        elif target >= 0:
            assert steps["match"].endswith(f"is endpoint {target}")
            assert ("translation" in steps) == (passage.left is not None)
        elif passage.verdict == Verdict.NO_LOCAL_BACKEND:
            assert steps["match"].startswith("no backend of this host has the VIP")
    assert {Verdict.DELIVERED, Verdict.NO_LOCAL_BACKEND, Verdict.MALFORMED} <= met


def test_asking_changes_nothing(host: AgentHost) -> None:
    passages = [host.pass_(by_mux(opened()))[0], host.pass_(reply(), is_reply=True)[0]]
    before = {name: memory.tobytes() for name, memory in host.agent.tables.memory.items()}
    for passage in passages:
        host.explain(passage)
    assert before == {name: memory.tobytes() for name, memory in host.agent.tables.memory.items()}


def test_a_mux_is_not_an_agent(host: AgentHost, tmp_path: Path) -> None:
    passage, _ = host.pass_(by_mux(opened()))
    with pytest.raises(ControlError, match="nothing listens there"):
        explain_at_agent(passage, tmp_path / "other.sock")
