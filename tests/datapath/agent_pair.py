"""An agent beside its plain twin: both process the same frames and must agree."""

import random

from lbmux.datapath.verdicts import Verdict
from tests.datapath.craft import ACK, RST, SYN, Craft, tunnelled
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_agent import LOCAL, Endpoint, PlainAgent
from tests.datapath.plain_flows import Idle, PlainFlows
from tests.datapath.plain_packet import TCP, UDP

OWN = [bytes([10, 1, 1, 2]), bytes([10, 1, 1, 3])]
MUXES = [bytes([10, 0, 1, 2]), bytes([10, 0, 2, 2])]
STRANGER = bytes([10, 0, 9, 9])
WEB, DNS, SECOND = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]), bytes([192, 0, 2, 7])
DIP, LONE_DIP = bytes([10, 1, 1, 2]), bytes([10, 1, 1, 9])
IDLE = Idle(untrusted=50, trusted=400, closing=20)


def endpoints(checks_sockets: bool = False) -> list[Endpoint]:
    """Two VIPs that share one server, one of UDP, one whose VIP is a local address.

    ``checks_sockets``: all but the second and that of UDP leave connections that are not known to the host's sockets.
    """
    return [
        Endpoint(WEB, 80, DIP, 8080, TCP, owner=3, idle=IDLE, mss=1200, checks_sockets=checks_sockets),
        Endpoint(SECOND, 80, DIP, 8080, TCP, owner=3, idle=Idle(500, 300, 10)),
        Endpoint(DNS, 53, LONE_DIP, 53, UDP, owner=1, idle=IDLE),
        Endpoint(WEB, 443, LONE_DIP, 443, TCP, owner=2, mode=LOCAL, checks_sockets=checks_sockets),
        Endpoint(bytes(4), 0, bytes(4), 0, TCP, 0, LOCAL, IDLE, checks_sockets=checks_sockets, is_direct=True),
    ]


class Pair:
    def __init__(self, buckets: int = 64, checks_sockets: bool = False) -> None:
        self.machine = Machine.make(buckets)
        self.endpoints = endpoints(checks_sockets)
        self.machine.install_agent(OWN, MUXES, self.endpoints)
        self.plain = PlainAgent(OWN, MUXES, self.endpoints, PlainFlows(self.machine.keys, buckets))

    def inbound(self, frames: list[bytes], now: int, flags: int = 0) -> list[tuple[Verdict, int, bytes]]:
        batch = Frames(frames, [flags] * len(frames))
        self.machine.worker.inbound(batch, now)
        plain = [self.plain.inbound(frame, now, flags) for frame in frames]
        return self._same(frames, batch, plain)

    def outbound(self, frames: list[bytes], now: int) -> list[tuple[Verdict, int, bytes]]:
        batch = Frames(frames)
        self.machine.worker.outbound(batch, now)
        return self._same(frames, batch, [self.plain.outbound(frame, now) for frame in frames])

    def _same(
        self, frames: list[bytes], batch: Frames, plain: list[tuple[Verdict, int, bytes]]
    ) -> list[tuple[Verdict, int, bytes]]:
        for frame, result, twin in zip(frames, batch.results(), plain, strict=True):
            assert result == twin, frame.hex()
        assert batch.untouched_around()
        return plain

    def check_tables(self) -> None:
        assert self.plain.flows.differences(self.machine.tables.flows) == []
        assert {k: v for k, v in self.machine.lookups().items() if v} == dict(self.plain.flows.lookups)
        counted = {v: (n, self.plain.verdict_bytes[v]) for v, n in self.plain.verdicts.items()}
        assert self.machine.verdicts() == counted


MSS_1460 = b"\x02\x04\x05\xb4"


def way_in(vip: bytes, flags: int = ACK) -> bytes:
    return tunnelled(Craft(destination=vip, flags=flags).packet(), MUXES[0], OWN[0])


REPLY_OF = Craft(source=DIP, source_port=8080, destination=Craft().source, destination_port=Craft().source_port)
REPLY = REPLY_OF.frame()


def destinations() -> list[tuple[bytes, int, int]]:
    here = [(e.vip, e.protocol, e.vip_port) for e in endpoints() if not e.is_direct]
    return [*here, *here[:2], (bytes([192, 0, 2, 99]), TCP, 80)]


def reply_to(delivered: bytes, payload: bytes) -> bytes:
    """What the server behind the DIP answers a well-formed delivered frame, or its stack: a few are refused."""
    packet = delivered[14:]
    return Craft(
        source=packet[16:20],
        destination=packet[12:16],
        protocol=packet[9],
        source_port=int.from_bytes(packet[22:24], "big"),
        destination_port=int.from_bytes(packet[20:22], "big"),
        payload=payload,
        flags=RST if len(payload) < 4 else SYN | ACK if len(payload) < 8 else ACK,
        tcp_options=MSS_1460 if packet[22] & 1 else b"",
    ).frame()


def own_connection(pick: random.Random, dip: bytes = DIP, vips: tuple[bytes, ...] = (WEB, SECOND)) -> bytes:
    """A packet of a backend to its own VIP, of few flows."""
    craft = Craft(
        source=dip, source_port=50000 + pick.randrange(9), destination=pick.choice(vips),
        flags=pick.choice([SYN, ACK, ACK, RST | ACK]), payload=pick.randbytes(pick.randrange(9)),
    )  # fmt: skip
    return tunnelled(craft.packet(), MUXES[0], OWN[0])


def local(flags: int) -> bytes:
    return tunnelled(Craft(destination=WEB, destination_port=443, flags=flags).packet(), MUXES[0], OWN[0])
