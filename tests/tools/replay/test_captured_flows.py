"""Packets and the flows that they are numbered as."""

import random
from pathlib import Path

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from lbmux.frames.capture_reader import CaptureReader
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.tools.replay.captured_flows import FIRST_CAPACITY, REPLY, CapturedFlows, plain_worker
from tests.frames.captures import pcap, record

ETHER = Ether(src="02:00:00:00:00:07", dst="02:00:00:00:00:08")

SECOND_NS = 10**9
PORT = 34
"""The offset of the source port in a UDP packet over IPv4."""


def tcp(flags: str, sequence: int = 1, port: int = 40000) -> Packet:
    return IP(src="198.51.100.7", dst="192.0.2.1") / TCP(sport=port, dport=80, flags=flags, seq=sequence)


def udp(source: str = "198.51.100.7", port: int = 40000, to: str = "192.0.2.2", to_port: int = 53) -> Packet:
    return IP(src=source, dst=to) / UDP(sport=port, dport=to_port)


def numbered(directory: Path, *packets: tuple[int, Packet], idle_s: int | None = None) -> CapturedFlows:
    """The flows of packets at times in seconds, all in one batch."""
    return of_records(directory, [record(bytes(ETHER / packet), time) for time, packet in packets], idle_s)


def of_records(directory: Path, records: list[bytes], idle_s: int | None = None) -> CapturedFlows:
    (directory / "in").write_bytes(pcap(*records))
    flows, frames = CapturedFlows(plain_worker(), every=True), CapturedFrames()
    if idle_s is not None:
        flows.idle_ns[:] = idle_s * SECOND_NS
    with CaptureReader(directory / "in") as reader:
        for batch in reader.batches(frames):
            flows.add(batch)
    return flows


def numbers(directory: Path, *packets: tuple[int, Packet], idle_s: int | None = None) -> list[int]:
    return numbered(directory, *packets, idle_s=idle_s).numbers[: len(packets)].tolist()


def test_packets_of_one_flow_and_of_others(tmp_path: Path) -> None:
    wide = IPv6(src="2001:db8::7", dst="2001:db8::80") / TCP(sport=40000, dport=80)
    other = IPv6(src="2001:db8::8", dst="2001:db8::80") / TCP(sport=40000, dport=80)
    packets = [tcp("S"), tcp("A"), tcp("A", port=40001), udp(to="192.0.2.1", to_port=80), wide, other, wide]
    assert numbers(tmp_path, *((1, packet) for packet in packets)) == [0, 0, 1, 2, 3, 4, 3]


def test_what_has_no_ports_has_no_flow(tmp_path: Path) -> None:
    assert numbers(tmp_path, (1, IP(dst="192.0.2.1", frag=7, proto=6) / bytes(40))) == [-1]


def test_record_counts_packets_bytes_and_times(tmp_path: Path) -> None:
    flows = numbered(tmp_path, (5, tcp("S")), (7, tcp("A")), (9, tcp("A", port=40001)))
    first = flows.records[0]
    assert (first["packets"], first["bytes"]) == (2, 108)
    assert (first["first_ns"], first["last_ns"]) == (5 * SECOND_NS, 7 * SECOND_NS)
    assert len(flows.records) == 2


def test_repeated_syn_is_the_same_flow(tmp_path: Path) -> None:
    assert numbers(tmp_path, (1, tcp("S", 9)), (2, tcp("S", 9)), (3, tcp("A", 10)), (4, tcp("S", 9))) == [0, 0, 0, 0]


def test_syn_with_another_sequence_number_begins_a_flow(tmp_path: Path) -> None:
    assert numbers(tmp_path, (1, tcp("S", 9)), (2, tcp("A", 10)), (3, tcp("S", 99)), (4, tcp("A"))) == [0, 0, 1, 1]


def test_syn_after_the_end_begins_a_flow(tmp_path: Path) -> None:
    for end in ("FA", "R"):
        assert numbers(tmp_path, (1, tcp("S")), (2, tcp(end)), (3, tcp("A")), (4, tcp("S"))) == [0, 0, 0, 1]


def test_syn_after_a_flow_without_one_begins_a_flow(tmp_path: Path) -> None:
    assert numbers(tmp_path, (1, tcp("A")), (2, tcp("S"))) == [0, 1]


def test_idle_datagrams_begin_a_flow_and_idle_connections_do_not(tmp_path: Path) -> None:
    assert numbers(tmp_path, (1, udp()), (11, udp()), (22, udp()), idle_s=10) == [0, 0, 1]
    assert numbers(tmp_path, (1, tcp("A")), (100, tcp("A")), idle_s=10) == [0, 0]


def test_opposite_direction_is_a_reply(tmp_path: Path) -> None:
    answer = udp("192.0.2.2", 53, "198.51.100.7", 40000)
    records = numbered(tmp_path, (1, udp()), (2, answer), (3, udp())).records
    assert [int(row["seen"]) & REPLY for row in records] == [0, REPLY]


def test_more_flows_than_at_first_fit(tmp_path: Path) -> None:
    wanted, data = 2 * FIRST_CAPACITY + 1, bytes(ETHER / udp())
    frames = [record(data[:PORT] + port.to_bytes(2, "big") + data[PORT + 2 :], 1) for port in range(wanted)]
    flows = of_records(tmp_path, frames + frames)
    assert len(flows.records) == wanted
    assert flows.records["packets"].tolist() == [2] * wanted


def plainly_numbered(packets: list[tuple[int, bytes]], idle_s: int) -> list[int]:
    """What the compiled code does, for TCP and UDP over IPv4 without options."""
    latest: dict[bytes, int] = {}
    flows: list[dict[str, int]] = []
    numbers = []
    for time, data in packets:
        key, is_tcp = data[23:24] + data[26:38], data[23] == 6
        sequence, flags = (int.from_bytes(data[38:42], "big"), data[47]) if is_tcp else (0, 0)
        flow = flows[latest[key]] if key in latest else None
        is_syn = is_tcp and flags & 0x12 == 0x02
        if is_tcp:
            differs = flow is not None and (flow["ended"] or flow["sequence"] != sequence)
            begins = is_syn and not flags & 0x04 and differs
        else:
            begins = flow is not None and time - flow["last"] > idle_s
        if flow is None or begins:
            latest[key] = len(flows)
            flow = {"sequence": sequence if is_syn else -1, "ended": 0}
            flows.append(flow)
        flow["last"] = time
        flow["ended"] |= flags & 0x05
        numbers.append(latest[key])
    return numbers


def test_random_packets_are_numbered_as_plain_code_does(tmp_path: Path) -> None:
    pick = random.Random(7)
    segment, datagram = bytes(ETHER / tcp("S")), bytes(ETHER / udp())
    packets: list[tuple[int, bytes]] = []
    for time in range(1000):
        data = bytearray(pick.choice((segment, datagram)))
        data[PORT + 1] = pick.randrange(12)
        if data[23] == 6:
            data[41], data[47] = pick.randrange(2), pick.choice((0x02, 0x02, 0x10, 0x10, 0x18, 0x11, 0x04, 0x12, 0x06))
        packets.append((time, bytes(data)))
    flows = of_records(tmp_path, [record(data, time) for time, data in packets], idle_s=20)
    expected = plainly_numbered(packets, 20)
    assert flows.numbers[: len(packets)].tolist() == expected
    assert flows.records["packets"].tolist() == [expected.count(number) for number in range(max(expected) + 1)]
