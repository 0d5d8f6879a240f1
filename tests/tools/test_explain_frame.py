"""Frames explained by their own bytes: as the data path takes them, or the slow path."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from lbmux.datapath.verdicts import Verdict
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from lbmux.tools.explain_frame import explain_frame
from lbmux.tools.explanation import Explanation
from lbmux.tools.packet_text import ClientPacket, PacketError
from tests.datapath.craft import ETHERNET, Stream, quic, tag
from tests.datapath.harness import Frames
from tests.linux.inside import CONFIG, client, dns
from tests.tools.served import Served, step

CLIENT, VIP, DNS = "198.51.100.7", "192.0.2.1", "192.0.2.2"
WEB, NAMES = CONFIG["services"]
IDS = [{"name": f"h{n}", "dip": f"10.1.{n}.2", "server_id": f"{n:02x}"} for n in (1, 2)]
QUIC: dict[str, Any] = NAMES | {"quic": {"rotation": 2, "id_bytes": 1}, "backends": IDS}


@pytest.fixture
def mux(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path / "mux.sock", config=CONFIG | {"services": [WEB, QUIC]})
    yield served
    served.close()


def names(explanation: Explanation) -> list[str]:
    return [step.step for step in explanation.steps]


def of_packet(packet: Any) -> bytes:
    return ETHERNET + b"\x08\0" + bytes(packet)


@pytest.mark.parametrize("server", [1, 2])
def test_a_connection_id_names_the_backend(mux: Served, server: int) -> None:
    explanation = explain_frame(replace(dns(), payload=quic(server)).frame(), mux.path)
    assert explanation.backend == f"h{server}"
    assert step(explanation, "backend")["by"] == "server_id"
    assert not {"flow", "slot"} & set(names(explanation))


@pytest.mark.slow
def test_any_frame_ends_as_on_the_tables_themselves(mux: Served) -> None:
    """Frames are tagged, have options, are truncated, malformed or too big, or have a TTL of 1."""
    stream, verdicts = Stream(52, [(bytes([192, 0, 2, 1]), 6, 80), (bytes([192, 0, 2, 2]), 17, 53)], 30), Counter[str]()
    for _, frame in zip(range(60), stream.frames(), strict=False):
        try:
            explanation = explain_frame(frame, mux.path)
        except PacketError:
            verdicts["no packet"] += 1
            continue
        sent = Frames([frame])
        Worker(mux.tables, 0).forward(sent, now_ticks())
        owner = mux.snapshot.owners.get(int(sent.target[0]))
        assert explanation.verdict == Verdict(int(sent.verdict[0]))
        assert explanation.backend == (owner[1].name if owner else None)
        verdicts[explanation.verdict.label] += 1
    assert {"forwarded", "not_vip", "malformed", "too_big", "ttl", "fragment", "no packet"} <= set(verdicts), verdicts


def test_a_vlan_tag_does_not_matter(mux: Served) -> None:
    explanation = explain_frame(client(tags=tag(7)).frame(), mux.path)
    outer = step(explanation, "outer header")
    assert (explanation.verdict, outer["ttl"], outer["length"]) == (Verdict.FORWARDED, 64, 60)


def test_the_first_fragment_has_the_steps_of_its_flow(mux: Served) -> None:
    frame = client(4000, fragment=0x2000).frame()
    explanation = explain_frame(frame, mux.path)
    assert explanation.verdict == Verdict.FRAGMENT
    assert "first fragment of a packet of 198.51.100.7:4000 > 192.0.2.1:80/tcp" in explanation.steps[1].found
    assert step(explanation, "backend")["backend"] == mux.explain(f"{CLIENT}:4000 > {VIP}:80/tcp").backend
    assert names(explanation)[0] == "packet" and names(explanation)[-1] == "verdict"


def test_a_later_fragment_follows_the_first(mux: Served) -> None:
    explanation = explain_frame(client(4000, fragment=0x0010).frame(), mux.path)
    assert names(explanation) == ["packet", "slow path", "verdict"]
    assert "it follows the first" in explanation.steps[1].found


def test_an_icmp_error_has_the_steps_of_the_flow_that_it_quotes(mux: Served) -> None:
    quoted = IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=4001)
    explanation = explain_frame(of_packet(IP(src="203.0.113.9", dst=VIP) / ICMP(type=3, code=4) / quoted), mux.path)
    assert explanation.verdict == Verdict.ICMP
    assert "about 198.51.100.7:4001 > 192.0.2.1:80/tcp" in explanation.steps[1].found
    assert step(explanation, "backend")["backend"] == mux.explain(f"{CLIENT}:4001 > {VIP}:80/tcp").backend


def test_a_ping_and_other_icmp(mux: Served) -> None:
    ping = explain_frame(of_packet(IP(src=CLIENT, dst=VIP) / ICMP()), mux.path)
    assert "an echo request" in ping.steps[1].found
    stray = IP(src="203.0.113.9", dst=VIP) / ICMP(type=3) / IP(src="192.0.2.77", dst=CLIENT) / UDP(sport=1, dport=2)
    assert "no flow of a VIP" in explain_frame(of_packet(stray), mux.path).steps[1].found


def test_the_kernel_records_the_beginning_of_a_long_frame(mux: Served) -> None:
    whole = of_packet(IP(src=CLIENT, dst=VIP) / TCP(sport=4000, dport=80, flags="A") / Raw(bytes(3000)))
    assert explain_frame(whole[:2048], mux.path).verdict == Verdict.TOO_BIG


def test_a_frame_that_is_not_ip_is_refused() -> None:
    with pytest.raises(PacketError, match="not IP"):
        ClientPacket.of_frame(ETHERNET + b"\x08\x06" + bytes(28))


def test_a_captured_packet_is_described_by_its_headers(mux: Served) -> None:
    explanation = explain_frame(client(4000).frame(), mux.path)
    assert str(explanation.packet) == f"{CLIENT}:4000 > {VIP}:80 tcp [.]"
    assert "caught" not in explanation.as_json()["packet"]
