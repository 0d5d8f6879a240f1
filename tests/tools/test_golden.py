"""The captures in pcaps/: as make.py makes them, their packets judged as they should be, and sent as golden."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether, Loopback
from scapy.packet import Packet
from scapy.utils import PcapReader

from lbmux.cli.main import run
from tests.datapath import plain_packet
from tests.datapath.plain_packet import Packet as Parsed

PCAPS = Path(__file__).parent.parent.parent / "pcaps"
SPEC = importlib.util.spec_from_file_location("make", PCAPS / "make.py")
assert SPEC and SPEC.loader
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)
INPUTS: dict[str, bytes] = make.inputs()

VERDICTS = {
    "tcp.pcap": {"forwarded": 18},
    "udp.pcap": {"forwarded": 8},
    "options.pcap": {"forwarded": 2},
    "fragments.pcap": {"fragment": 3},
    "icmp.pcap": {"icmp": 2},
    "vlan.pcap": {"forwarded": 2},
    "ipv6.pcap": {"forwarded": 5},
    "other.pcap": {"not_ip": 2, "protocol": 1, "not_vip": 3},
    # An incomplete Ethernet or IP header is truncated; a complete one that claims more bytes is malformed.
    "truncated.pcap": {"truncated": 6, "malformed": 6},
    # 49 of 50 bytes pass, and so do UDP lengths: the host checks those.
    "lengths.pcap": {"forwarded": 4, "malformed": 9, "truncated": 1},
    "checksums.pcap": {"forwarded": 4},
    "large.pcap": {"forwarded": 1, "too_big": 2},
    "snapped.pcap": {"forwarded": 19, "too_big": 2},
    "padded.pcap": {"forwarded": 2},
    "raw.pcap": {"forwarded": 5},
    "sll.pcap": {"forwarded": 6},
    "sll2.pcap": {"forwarded": 6},
    "null.pcap": {"forwarded": 5},
    "loop.pcap": {"forwarded": 5},
    "ppp.pcap": {"forwarded": 5},
    "modified.pcap": {"forwarded": 18},
    "tcp.pcap.gz": {"forwarded": 18},
    "tcp.pcap.zst": {"forwarded": 18},
    "foreign.pcapng": {"forwarded": 4},
    "nanoseconds.pcap": {"forwarded": 18},
    "bigendian.pcap": {"forwarded": 18},
    "nanoseconds.pcapng": {"forwarded": 7},
    "cut.pcap": {"forwarded": 17},
    "cut.pcapng": {"forwarded": 5},
    "empty.pcap": {},
}
SAME_AS_TCP = ("modified.pcap", "tcp.pcap.gz", "tcp.pcap.zst")
"""tcp.pcap in formats that scapy may not read."""
BARE = ("raw.pcap", "null.pcap", "loop.pcap", "ppp.pcap")
SKIPPED = {"foreign.pcapng": {"220": 3}}
DAMAGE = {"cut.pcap": 1319, "cut.pcapng": 564}
HOSTS = {
    "192.0.2.1": {"10.1.1.2", "10.1.2.2", "10.1.4.2"},
    "192.0.2.2": {"10.1.1.2", "10.1.2.2"},
    "2001:db8::80": {"2001:db8:1::2", "10.1.2.2"},
}


def replayed(name: str, output: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    own = ["--address", "10.0.0.1", "--address", "fd00::1"]
    options = ["-c", str(make.CONFIG), *own, "-w", str(output), "--json"]
    status = run(["replay", str(PCAPS / name), *options])
    return status, json.loads(capsys.readouterr().out)


def packets(path: Path) -> list[Packet]:
    path = PCAPS / "tcp.pcap" if path.name in SAME_AS_TCP else path
    with PcapReader(str(path)) as reader:
        return list(reader)


def tags(packet: Packet) -> list[int]:
    return [layer.vlan for layer in packet.iterpayloads() if isinstance(layer, Dot1Q)]


def layers(packet: Packet) -> list[Packet]:
    """The IP headers, the outer one first."""
    kinds, layer = [], packet
    while layer:
        if isinstance(layer, IP | IPv6):
            kinds.append(layer)
        layer = layer.payload
    return kinds


def network_layer(packet: Packet) -> bytes:
    """What came, with one hop less."""
    data = packet.original
    if not isinstance(packet, Ether):
        if isinstance(packet, Loopback):  # scapy knows only Linux's number for IPv6
            data = data[4:]
        elif layers(packet):
            data = layers(packet)[0].original
        data = bytes(12) + (b"\x86\xdd" if data[:1].hex().startswith("6") else b"\x08\0") + data
    whole = data + bytes(2000)  # zeros in place of the bytes that were cut
    parsed = plain_packet.parse(whole)
    return plain_packet.a_hop_on(whole)[: len(data) - parsed.network] if isinstance(parsed, Parsed) else data[14:]


def test_every_input_is_expected() -> None:
    assert set(VERDICTS) == set(INPUTS)


@pytest.mark.parametrize("name", INPUTS)
class TestEach:
    def test_made_by_the_script(self, name: str) -> None:
        assert (PCAPS / name).read_bytes() == INPUTS[name]

    def test_has_a_line_in_the_readme(self, name: str) -> None:
        assert f"| `{name}` | " in (PCAPS / "README.md").read_text()

    def test_verdicts_and_golden_output(self, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, said = replayed(name, tmp_path / "out", capsys)
        assert {verdict: count["packets"] for verdict, count in said["verdicts"].items()} == VERDICTS[name]
        assert said["written"] == VERDICTS[name].get("forwarded", 0)
        assert said["skipped"] == SKIPPED.get(name, {})
        assert status == (name in DAMAGE)
        assert (said["damage"] or {}).get("offset") == DAMAGE.get(name)
        assert (tmp_path / "out").read_bytes() == (PCAPS / make.golden(name)).read_bytes()


@pytest.mark.parametrize("name", SAME_AS_TCP)
def test_another_format_with_the_same_packets(name: str) -> None:
    assert (PCAPS / make.golden(name)).read_bytes() == (PCAPS / "tcp.golden.pcap").read_bytes()


@pytest.mark.parametrize("name", [name for name in INPUTS if VERDICTS[name].get("forwarded")])
class TestGolden:
    def test_outer_header(self, name: str) -> None:
        for packet in packets(PCAPS / make.golden(name)):
            outer, inner = layers(packet)
            assert outer.dst in HOSTS[inner.dst]
            if isinstance(outer, IPv6):
                assert (outer.hlim, outer.nh, outer.src, outer.plen) == (64, 41, "fd00::1", len(bytes(inner)))
                assert (outer.tc, outer.fl) == (inner.tc, inner.fl)
                continue
            assert (outer.version, outer.ihl, outer.ttl, outer.frag, outer.src) == (4, 5, 64, 0, "10.0.0.1")
            if isinstance(inner, IPv6):
                assert (outer.proto, outer.tos, outer.id, outer.flags) == (41, inner.tc, 0, "DF")
                assert outer.len == 60 + inner.plen
            else:
                assert (outer.proto, outer.tos, outer.id) == (4, inner.tos, inner.id)
                assert (str(outer.flags), outer.len) == (str(inner.flags), 20 + inner.len)
            checksum = outer.chksum
            del outer.chksum
            assert IP(bytes(outer)[:20]).chksum == checksum

    def test_ethernet_header(self, name: str) -> None:
        for packet in packets(PCAPS / make.golden(name)):
            if name in BARE:
                assert isinstance(packet, IP | IPv6)
            else:
                assert (packet.src, packet.dst) == ("02:00:00:00:00:01", "02:00:00:00:00:02")

    def test_inner_packets_and_times_are_those_of_arrival(self, name: str) -> None:
        came = [(network_layer(packet), packet.time) for packet in packets(PCAPS / name)]
        if name == "nanoseconds.pcapng":  # its last one, in a simple block, has no time of its own
            came[-1] = came[-1][0], came[-2][1]
        left = iter(came)
        for packet in packets(PCAPS / make.golden(name)):
            outer, _ = layers(packet)
            head = 40 if isinstance(outer, IPv6) else 20
            start = packet.original.index(bytes(outer)[:head]) + head
            assert (packet.original[start:], packet.time) in left  # in order: the iterator skips what came before

    def test_vlan_tags_are_those_of_arrival(self, name: str) -> None:
        came, sent = packets(PCAPS / name), packets(PCAPS / make.golden(name))
        assert len(sent) < len(came) or [*map(tags, sent)] == [*map(tags, came)]

    def test_a_flow_has_one_backend(self, name: str) -> None:
        hosts: dict[tuple[str, int, str], set[str]] = {}
        for packet in packets(PCAPS / make.golden(name)):
            outer, inner = layers(packet)
            transport = inner[UDP] if UDP in inner else inner[TCP]
            hosts.setdefault((inner.src, transport.sport, inner.dst), set()).add(outer.dst)
        assert all(len(each) == 1 for each in hosts.values())
