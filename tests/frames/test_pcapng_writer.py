"""What is written, read by scapy: bytes, times, lengths, interfaces."""

import io

from scapy.utils import RawPcapNgReader

from lbmux.frames.pcapng_writer import INBOUND, OUTBOUND, PcapngWriter

LATE_NS = 1_900_000_000_123_456_789


def written(*packets: tuple[int, str, bytes, int, str, int]) -> RawPcapNgReader:
    file = io.BytesIO()
    writer = PcapngWriter(file)
    for packet in packets:
        writer.write(*packet)
    file.seek(0)
    return RawPcapNgReader(file)


def test_bytes_time_and_interface_of_each_packet() -> None:
    reader = written((LATE_NS, "eth0", b"one", 3, "in", INBOUND), (LATE_NS + 1, "eth1", b"other", 5, "out", OUTBOUND))
    packets = list(reader)
    assert [data for data, _ in packets] == [b"one", b"other"]
    assert [(about.tshigh << 32) + about.tslow for _, about in packets] == [LATE_NS, LATE_NS + 1]
    assert [about.tsresol for _, about in packets] == [1_000_000_000] * 2
    assert [about.ifname for _, about in packets] == [b"eth0", b"eth1"]


def test_a_packet_of_which_only_the_beginning_is_there_keeps_its_length() -> None:
    ((data, about),) = list(written((1, "eth0", bytes(2048), 9014, "in", INBOUND)))
    assert (len(data), about.wirelen) == (2048, 9014)
