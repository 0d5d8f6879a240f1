"""Make the captures in this directory, and beside each the golden output: what a mux sends.

    python pcaps/make.py            # inputs and golden outputs
    python pcaps/make.py --inputs   # inputs alone

Deterministic: the same bytes each time, which tests/tools/test_golden.py holds it to.  A golden output that changes is
a change of the data path, to be looked at before it is committed.
"""

import struct
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR, IPOption_Timestamp, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import ARP, GRE, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import HDLC, PPP
from scapy.packet import Packet, Raw

HERE = Path(__file__).parent
CONFIG = HERE / "services.yaml"
WEB, NAMES, CLIENT = "192.0.2.1", "192.0.2.2", "198.51.100.7"
START_S = 1_700_000_000
NULL, ETHERNET, PPP_LINK, RAW_IP, LOOP, COOKED, USB, COOKED2 = 0, 1, 9, 101, 108, 113, 220, 276
MICROSECONDS, NANOSECONDS, MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
SNAP_BYTES = 64


def ethernet(payload: Packet) -> Packet:
    return Ether(src="02:00:00:00:0c:01", dst="02:00:00:00:0c:02") / payload


def tcp(port: int = 40000, flags: str = "A", payload: bytes = b"", **ip: object) -> Packet:
    """A client's packet to the web service."""
    segment = TCP(sport=port, dport=80, flags=flags, seq=1000, ack=2000 if "A" in flags else 0)
    packet = IP(**({"src": CLIENT, "dst": WEB, "ttl": 61, "flags": "DF"} | ip)) / segment
    return packet / Raw(payload) if payload else packet


def udp(port: int = 50000, payload: Packet | None = None, **fields: object) -> Packet:
    """A client's question to the name service."""
    question = DNS(id=port & 0xFFFF, qd=DNSQR(qname="example.org"))
    return IP(src=CLIENT, dst=NAMES, ttl=61) / UDP(sport=port, dport=53, **fields) / (payload or question)


def connection(port: int, source: str = CLIENT) -> list[Packet]:
    """A client's half of one HTTP request."""
    request = b"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"
    steps = [("S", b""), ("A", b""), ("PA", request), ("A", b""), ("FA", b""), ("A", b"")]
    return [ethernet(tcp(port, flags, payload, src=source)) for flags, payload in steps]


def pcap(
    frames: Iterable[Packet | bytes], magic: int = MICROSECONDS, link: int = ETHERNET, order: str = "<",
    snap: int = 262144,
) -> bytes:  # fmt: skip
    """A millisecond between frames."""
    content, unit = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snap, link), 1 if magic == NANOSECONDS else 1000
    more = struct.pack(order + "IHBx", 2, 0x0800, 0) if magic == MODIFIED else b""
    for number, frame in enumerate(map(bytes, frames)):
        fraction = (number * 1_000_000 + 123_456) // unit
        content += struct.pack(order + "IIII", START_S, fraction, min(len(frame), snap), len(frame))
        content += more + frame[:snap]
    return content


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def pcapng(frames: Sequence[Packet], packets: Sequence[Packet]) -> bytes:
    """Nanoseconds; Ethernet frames on one interface, raw IP packets on another, and a block of an unknown type."""
    resolution = struct.pack("<HHBxxxHH", 9, 1, 9, 0, 0)
    content = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    content += block(1, struct.pack("<HHI", ETHERNET, 0, 65535) + resolution)
    content += block(1, struct.pack("<HHI", RAW_IP, 0, 65535) + resolution)
    content += block(0x80000BAD, b"what is this?")
    for number, (interface, packet) in enumerate([*((0, one) for one in frames), *((1, one) for one in packets)]):
        data, time_ns = bytes(packet), START_S * 10**9 + number * 1_000_001
        head = struct.pack("<IIIII", interface, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), len(data))
        content += block(6, head + data)
    return content + block(3, struct.pack("<I", len(frames[0])) + bytes(frames[0]))


def foreign(frames: Sequence[Packet]) -> bytes:
    """USB packets before, between and behind Ethernet frames."""
    content = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    content += block(1, struct.pack("<HHI", USB, 0, 65535)) + block(1, struct.pack("<HHI", ETHERNET, 0, 65535))
    urb = bytes(64)
    for number, data in enumerate([urb, *map(bytes, frames[:2]), urb, *map(bytes, frames[2:]), urb]):
        time_us = START_S * 10**6 + number
        head = struct.pack("<IIIII", data is not urb, time_us >> 32, time_us & 0xFFFFFFFF, len(data), len(data))
        content += block(6, head + data)
    return content


def gzip(data: bytes) -> bytes:
    """One member with the data as it is (RFC 1952, RFC 1951 section 3.2.4): the same bytes whatever packs files."""
    stored = struct.pack("<BHH", 1, len(data), len(data) ^ 0xFFFF) + data
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + stored + struct.pack("<II", zlib.crc32(data), len(data))


def zstd(data: bytes) -> bytes:
    """One frame of one raw block (RFC 8878, section 3.1.1)."""
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + struct.pack("<I", len(data) << 3 | 1)[:3] + data


def cooked(link: type[Packet], packets: Iterable[Packet]) -> list[Packet]:
    return [link() / packet for packet in packets]


def truncated() -> list[bytes]:
    """Frames whose headers end early: at each header's first byte, in it, and one byte before its end."""
    whole, question = bytes(ethernet(tcp())), bytes(ethernet(udp()))
    return [whole[:size] for size in (0, 1, 13, 14, 15, 33, 34, 35, 53)] + [question[:size] for size in (34, 35, 41)]


def wrong_lengths() -> list[Packet]:
    payload = b"0123456789"
    totals = [0, 19, 20, 39, 49, 51, 0xFFFF]
    packets = [tcp(payload=payload, len=total) for total in totals]
    packets += [tcp(payload=payload, ihl=ihl) for ihl in (0, 4, 15)] + [tcp(payload=payload, version=6)]
    packets += [udp(len=length) for length in (0, 7, 0xFFFF)]
    return [ethernet(packet) for packet in packets]


def bad_checksums() -> list[Packet]:
    packets = [tcp(payload=b"header", chksum=0xDEAD), udp(chksum=0xDEAD), udp(chksum=0)]
    segment = tcp(payload=b"segment")
    segment[TCP].chksum = 0xBEEF
    return [ethernet(packet) for packet in [*packets, segment]]


def others() -> list[Packet]:
    """What is left to the kernel: not IP, not TCP or UDP, not to a VIP or to its port."""
    to_port = IP(src=CLIENT, dst=WEB) / TCP(sport=40000, dport=81, flags="S")
    return [
        Ether(src="02:00:00:00:0c:01", dst="ff:ff:ff:ff:ff:ff") / ARP(
            hwsrc="02:00:00:00:0c:01", psrc="10.0.0.9", pdst="10.0.0.1"
        ),
        ethernet(IP(src=CLIENT, dst=WEB) / GRE() / IP(src=CLIENT, dst=WEB)),
        ethernet(to_port),
        ethernet(tcp(dst="192.0.2.99")),
        ethernet(IP(src=CLIENT, dst=WEB) / UDP(sport=40000, dport=80)),
        Ether(src="02:00:00:00:0c:01", dst="02:00:00:00:0c:02", type=0x88B5) / Raw(bytes(46)),
    ]  # fmt: skip


def inputs() -> dict[str, bytes]:
    """Every capture's bytes, by file name."""
    clients = [connection(40000), connection(40001, "203.0.113.9"), connection(40003)]
    web = [frame for step in zip(*clients, strict=True) for frame in step]
    v6 = IPv6(src="2001:db8::7", dst="2001:db8::80", tc=0xB8, fl=0x12345) / TCP(sport=40000, dport=80, flags="S")
    return packets(web, v6) | links_and_formats(web, v6)


def packets(web: list[Packet], v6: Packet) -> dict[str, bytes]:
    """Captures of packets of each kind."""
    options = [IPOption_RR(length=7, routers=["0.0.0.0"]), IPOption_Timestamp(length=8, flg=0, timestamp=0)]
    large = IP(src=CLIENT, dst=NAMES, id=7) / UDP(sport=50000, dport=53) / Raw(bytes(3000))
    echo = IP(src=CLIENT, dst=WEB) / ICMP(id=1, seq=1) / Raw(b"ping")
    needed = IP(src="198.51.100.1", dst=WEB) / ICMP(type=3, code=4, nexthopmtu=1400) / IP(src=WEB, dst=CLIENT)
    tags = [Dot1Q(vlan=5) / tcp(), Dot1AD(vlan=6) / Dot1Q(vlan=5) / tcp()]
    clients6 = [v6.copy() for _ in range(4)]
    for port, packet in enumerate(clients6, 40000):
        packet[TCP].sport = port
    options6 = IPv6(src="2001:db8::7", dst="2001:db8::80") / IPv6ExtHdrDestOpt() / v6[TCP]
    sizes = [tcp(payload=bytes(size), id=size) for size in (1440, 1441, 1460)]
    questions = [ethernet(udp(port)) for port in range(50000, 50008)]
    return {
        "tcp.pcap": pcap(web),
        "udp.pcap": pcap(questions),
        "options.pcap": pcap(ethernet(IP(src=CLIENT, dst=WEB, options=[one]) / TCP(dport=80)) for one in options),
        "fragments.pcap": pcap(map(ethernet, fragment(large, 1400))),
        "icmp.pcap": pcap([ethernet(echo), ethernet(needed / TCP(sport=80, dport=40000))]),
        "vlan.pcap": pcap(map(ethernet, tags)),
        "ipv6.pcap": pcap(map(ethernet, [*clients6, options6])),
        "other.pcap": pcap(others()),
        "truncated.pcap": pcap(truncated()),
        "lengths.pcap": pcap(wrong_lengths()),
        "checksums.pcap": pcap(bad_checksums()),
        "large.pcap": pcap(map(ethernet, sizes)),
        "snapped.pcap": pcap([*web, *map(ethernet, sizes)], snap=SNAP_BYTES),
        "padded.pcap": pcap(bytes(frame) + bytes(6) for frame in web[:2]),
        "empty.pcap": pcap([]),
    }


def links_and_formats(web: list[Packet], v6: Packet) -> dict[str, bytes]:
    """Captures of each link type, and in each file format."""
    tagged = Dot1Q(vlan=5) / tcp()
    both = [*(frame.payload for frame in web[:4]), v6]
    families = [struct.pack("<I", 2 if IP in packet else 30) for packet in both]
    return {
        "raw.pcap": pcap(both, link=RAW_IP),
        "sll.pcap": pcap(cooked(CookedLinux, [*both, tagged]), link=COOKED),
        "sll2.pcap": pcap(cooked(CookedLinuxV2, [*both, tagged]), link=COOKED2),
        "null.pcap": pcap((head + bytes(one) for head, one in zip(families, both, strict=True)), link=NULL),
        "loop.pcap": pcap((head[::-1] + bytes(one) for head, one in zip(families, both, strict=True)), link=LOOP),
        "ppp.pcap": pcap([PPP() / both[0], *(HDLC() / PPP() / one for one in both[1:])], link=PPP_LINK),
        "modified.pcap": pcap(web, MODIFIED),
        "tcp.pcap.gz": gzip(pcap(web)),
        "tcp.pcap.zst": zstd(pcap(web)),
        "nanoseconds.pcap": pcap(web, NANOSECONDS),
        "bigendian.pcap": pcap(web, order=">"),
        "nanoseconds.pcapng": pcapng(web[:4], [udp(), v6]),
        "foreign.pcapng": foreign(web[:4]),
        "cut.pcap": pcap(web)[:-10],
        "cut.pcapng": pcapng(web[:4], [udp()])[:-10],
    }


def golden(name: str) -> str:
    """`cut.pcapng`: `cut-ng.golden.pcap`; `tcp.pcap.gz`: `tcp-gz.golden.pcap`."""
    stem, _, packed = name.replace(".pcapng", "-ng.pcap").partition(".pcap")
    return f"{stem}{packed.replace('.', '-')}.golden.pcap"


def main() -> None:
    captures = inputs()
    for name, content in captures.items():
        (HERE / name).write_bytes(content)
    if "--inputs" in sys.argv[1:]:
        return
    from lbmux.cli.main import run

    own = ["--address", "10.0.0.1", "--address", "fd00::1"]

    for name in captures:
        print(f"== {name}", flush=True)
        run(["replay", str(HERE / name), "-c", str(CONFIG), *own, "-w", str(HERE / golden(name))])


if __name__ == "__main__":
    main()
