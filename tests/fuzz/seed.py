"""The corpus to begin with: well-formed frames of every kind, each with every way's first byte.

python -m tests.fuzz.seed tests/fuzz/corpus
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

from tests.datapath.agent_pair import DIP, MUXES, OWN, destinations
from tests.datapath.craft import Craft, quic, tag, tunnelled
from tests.datapath.plain_packet import Packet, parse
from tests.datapath.plain_tunnel import KINDS, encapsulate
from tests.datapath.test_mux import DNS6, WEB, WEB6
from tests.datapath.test_mux import destinations as mux_destinations

CLIENT, CLIENT6 = Craft().source, bytes.fromhex("20010db8000100000000000000000007")


def frames() -> list[tuple[int, bytes]]:
    """(way, frame)"""
    seeds: list[tuple[int, bytes]] = []
    for address, protocol, port in dict.fromkeys(mux_destinations()):
        source = CLIENT if len(address) == 4 else CLIENT6
        craft = Craft(source, address, protocol, destination_port=port, payload=b"payload")
        seeds.append((0, craft.frame()))
    base, base6 = Craft(CLIENT, WEB), Craft(CLIENT6, WEB6)
    seeds += [(0, replace(base, tags=tag(7)).frame()), (0, replace(base, tags=tag(7) * 2, options=bytes(8)).frame())]
    chains = [
        ((0, bytes(7)), (43, bytes(7)), (60, b"\1" + bytes(14))),
        ((44, b"\0\0\1" + bytes(4)),),
        ((51, b"\2" + bytes(14)),),
    ]
    seeds += [(0, replace(base6, extensions=chain).frame()) for chain in chains]
    datagram = Craft(CLIENT6, DNS6, 17, destination_port=443)
    seeds += [(0, replace(datagram, payload=quic(0, is_long=long)).frame()) for long in (False, True)]
    for address, protocol, port in destinations():
        craft = Craft(CLIENT, address, protocol, destination_port=port, payload=b"payload")
        packet = parse(craft.frame())
        assert isinstance(packet, Packet)
        for kind in KINDS[:5]:
            macs = bytes(6)
            seeds.append((1, encapsulate(craft.frame(), packet, kind, macs, macs, MUXES[0], OWN[0], entropy=1)))
    seeds.append((1, tunnelled(base6.packet(), MUXES[0], OWN[0], tos=3)))
    seeds += [(2, Craft(DIP, CLIENT, 6, 8080, 40000).frame()), (2, replace(base6, tags=tag(1)).frame())]
    return seeds


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for way, frame in frames():
        data = bytes([way]) + frame
        (directory / hashlib.sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
