"""Inputs to begin with: well-formed ones for each parser.

python -m tests.fuzz.parser_seeds tests/fuzz/parsers_corpus
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.cli.man import EXAMPLE
from tests.bgp.test_bird import PROTOCOLS, SESSIONS
from tests.fuzz.parsers import GENEVE_PORT, GUE_PORT
from tests.slowpath.golden import CLIENT, CLIENT6, DIP, ETHER, HOST, HOST6, MUX, MUX6, VIP, VIP6

QUOTED = IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=40000)
QUOTED6 = IPv6(src=VIP6, dst=CLIENT6) / UDP(sport=53, dport=40000) / Raw(b"query")
INNER = IP(src=CLIENT, dst=VIP) / TCP(sport=40000, dport=80, flags="A")
WORDS = ("service web", "not (backend h1 or client 198.51.100.0/24)", "idle > 5 and state trusted", "drop", "port 80")


def frames() -> Iterable[bytes]:
    large = IP(src=CLIENT, dst=VIP, id=7) / UDP(sport=40000, dport=53) / Raw(bytes(2000))
    packets = [
        INNER, IP(src=CLIENT, dst=VIP, ttl=1) / TCP(dport=80), IP(src=CLIENT, dst=VIP) / ICMP() / Raw(bytes(40)),
        IP(src=CLIENT, dst=VIP) / ICMP(type=3, code=4, nexthopmtu=1400) / QUOTED,
        IPv6(src=CLIENT6, dst=VIP6) / ICMPv6EchoRequest(), IPv6(src=CLIENT6, dst=VIP6) / ICMPv6DestUnreach() / QUOTED6,
        *fragment(large, 1000), IP(src=HOST, dst=MUX) / INNER, IPv6(src=HOST6, dst=MUX6) / INNER,
        IP(src=HOST, dst=MUX) / ICMP(type=3) / IP(src=MUX, dst=HOST) / INNER,
    ]  # fmt: skip
    return [bytes(Ether(**ETHER) / packet) for packet in packets]


def seeds() -> dict[str, list[bytes]]:
    tunnels = [IP() / UDP(dport=GUE_PORT) / Raw(bytes(4)) / INNER, IP() / UDP(dport=GUE_PORT) / INNER,
               IP() / UDP(dport=GENEVE_PORT) / Raw(b"\0\0\x08\0" + bytes(4)) / INNER]  # fmt: skip
    dip = IP(src=DIP, dst=CLIENT) / TCP(sport=8080, dport=40000)
    errors = [bytes(IP(src=HOST, dst=VIP) / ICMP(type=kind) / quote) for kind in (3, 11, 12) for quote in (QUOTED, dip)]
    captures = sorted((Path(__file__).parents[2] / "pcaps").glob("*.pcap*"), key=lambda path: path.stat().st_size)
    requests = [{"command": "flows", "filter": "service web", "limit": 3}, {"command": "override", "backend": "h1"},
                {"command": "trace"}, {"command": "memory", "region": "flows", "at": 0, "length": 8}]  # fmt: skip
    return {
        "icmp_quote": [*errors, bytes(IPv6(src=HOST6, dst=VIP6) / ICMPv6DestUnreach() / QUOTED6)],
        "tunnel": [*frames(), *(bytes(Ether(**ETHER) / packet) for packet in tunnels)],
        "mux_slow_path": [*frames()],
        "bird": [f"{PROTOCOLS}\0{SESSIONS}".encode()],
        "configuration": [EXAMPLE.encode()],
        "control_request": [json.dumps(request).encode() for request in requests],
        "health_message": [b"0" * 64 + b' {"n": 0, "backends": []}\n'],
        "flow_words": [words.encode() for words in WORDS],
        "event_words": [words.encode() for words in WORDS],
        "capture": [path.read_bytes()[:2048] for path in captures[:16]],
        "topology": [b"name: a\nnodes: [{name: n, role: mux}]\nlinks: []\nconfig: {services: []}\n"],
        "crafted": [b'IP(dst="192.0.2.1")/TCP(dport=80)', b"Ether()/IPv6()/UDP(sport=(1,3))"],
    }


def main(directory: Path) -> None:
    for name, inputs in seeds().items():
        (directory / name).mkdir(parents=True, exist_ok=True)
        for data in inputs:
            (directory / name / hashlib.sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
