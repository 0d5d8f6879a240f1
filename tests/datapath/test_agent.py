"""The host agent against its plain twin, in and out, over random frames."""

import random
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from lbmux.datapath.frame import KNOWN_LOCAL
from lbmux.datapath.verdicts import Verdict
from lbmux.targets.native import Worker
from tests.datapath.craft import ACK, RST, SYN, Craft, Stream, tunnelled
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_agent import LOCAL, Endpoint, PlainAgent
from tests.datapath.plain_flows import Idle, PlainFlows
from tests.datapath.plain_packet import TCP, UDP, Packet, parse, transport_checksum

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


def destinations() -> list[tuple[bytes, int, int]]:
    here = [(e.vip, e.protocol, e.vip_port) for e in endpoints() if not e.is_direct]
    return [*here, *here[:2], (bytes([192, 0, 2, 99]), TCP, 80)]


MSS_1460 = b"\x02\x04\x05\xb4"


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


ALWAYS_MET = {
    "DELIVERED", "REPLIED", "HAIRPIN", "NOT_TUNNELLED", "NOT_TRANSLATED", "NOT_A_MUX", "NO_LOCAL_BACKEND", "FRAGMENT",
}  # fmt: skip


@pytest.mark.parametrize("checks_sockets", [False, True])
@pytest.mark.parametrize("buckets", [1, 8, 512])
def test_agrees_with_the_plain_agent(buckets: int, checks_sockets: bool) -> None:
    pair, pick = Pair(buckets, checks_sockets), random.Random(buckets)
    inner, broken = Stream(buckets, destinations(), flows=150), Stream(buckets + 1, [(OWN[0], 4, 0)])
    frames, outer_broken = inner.frames(), broken.frames()
    now = 0xFFFFFF80
    for turn in range(70):
        arriving = [
            next(outer_broken)
            if pick.random() < 0.05
            else tunnelled(
                frame[14:],
                pick.choice(MUXES * 20 + [STRANGER]),
                pick.choice(OWN * 20 + [STRANGER]),
                tos=pick.getrandbits(8),
                fragment=pick.choice([0, 0x4000, 0x4000, 0x4000, 0x2000]),
            )[: pick.choice([None] * 30 + [pick.randint(14, 80)])]
            for frame in islice(frames, pick.randint(1, 50))
        ] + [own_connection(pick) for _ in range(pick.randrange(4))]
        delivered = pair.inbound(arriving, now)
        now = (now + pick.choice([0, 1, 3, 25])) & 0xFFFFFFFF
        came = [frame for verdict, _, frame in delivered if verdict == Verdict.DELIVERED and frame[14] == 0x45]
        leaving = [reply_to(frame, b"") for frame in came[-1:]]  # before other flows evict its entry
        leaving += [reply_to(frame, pick.randbytes(pick.randrange(20))) for frame in came]
        leaving += islice(inner.frames(), 5)
        pair.outbound(leaving, now)
        now = (now + pick.choice([0, 1, 10, 60, 450])) & 0xFFFFFFFF
        if pick.random() < 0.2:
            pair.machine.tables.endpoints[2]["generation"] = pair.endpoints[2].generation = turn
    pair.check_tables()
    met = {verdict.name for verdict in pair.plain.verdicts}
    assert met >= ALWAYS_MET
    assert ("UNKNOWN_CONNECTION" in met) == ("RESET_SUPPRESSED" in met) == checks_sockets


def own_connection(pick: random.Random, dip: bytes = DIP, vips: tuple[bytes, ...] = (WEB, SECOND)) -> bytes:
    """A packet of a backend to its own VIP, of few flows."""
    craft = Craft(
        source=dip, source_port=50000 + pick.randrange(9), destination=pick.choice(vips),
        flags=pick.choice([SYN, ACK, ACK, RST | ACK]), payload=pick.randbytes(pick.randrange(9)),
    )  # fmt: skip
    return tunnelled(craft.packet(), MUXES[0], OWN[0])


def test_a_backend_that_is_its_own_client_has_the_vip_as_its_peer_at_both_ends() -> None:
    pair = Pair(checks_sockets=True)
    opening = Craft(source=DIP, source_port=50000, destination=WEB, flags=SYN)
    ((verdict, target, frame),) = pair.inbound([tunnelled(opening.packet(), MUXES[0], OWN[0])], 1)
    arrived = parse(frame)
    assert (verdict, target) == (Verdict.DELIVERED, 0) and isinstance(arrived, Packet)
    assert (arrived.source, arrived.destination) == (WEB, DIP)
    assert arrived.ports == (50000).to_bytes(2) + (8080).to_bytes(2)
    answer = Craft(source=DIP, source_port=8080, destination=WEB, destination_port=50000, flags=SYN | ACK)
    ((verdict, target, frame),) = pair.outbound([answer.frame()], 2)
    back = parse(frame)
    assert (verdict, target) == (Verdict.HAIRPIN, 0) and isinstance(back, Packet)
    assert (back.source, back.destination, frame[:6]) == (WEB, DIP, frame[6:12])
    assert back.ports == (80).to_bytes(2) + (50000).to_bytes(2)
    assert int.from_bytes(frame[50:52]) == transport_checksum(frame, back)
    pair.check_tables()


def way_in(vip: bytes, flags: int = ACK) -> bytes:
    return tunnelled(Craft(destination=vip, flags=flags).packet(), MUXES[0], OWN[0])


REPLY_OF = Craft(source=DIP, source_port=8080, destination=Craft().source, destination_port=Craft().source_port)
REPLY = REPLY_OF.frame()


@pytest.mark.parametrize(
    "flags", [ACK, SYN, SYN | ACK, RST, RST | ACK], ids=["ACK", "SYN", "SYN-ACK", "RST", "RST-ACK"]
)
def test_no_packet_to_another_vip_takes_a_connection_there(flags: int) -> None:
    """It may be forged: the address and port of a client are no secret."""
    pair = Pair(checks_sockets=True)
    pair.inbound([way_in(WEB, SYN), way_in(WEB)], 1)
    for known_local in (0, KNOWN_LOCAL):
        assert pair.inbound([way_in(SECOND, flags)], 2, known_local)[0][0] == Verdict.UNKNOWN_CONNECTION
    assert pair.inbound([way_in(WEB)], 3)[0][0] == Verdict.DELIVERED
    assert pair.outbound([REPLY], 3)[0][2][26:30] == WEB
    assert (pair.machine.tables.flows["state"] != 0).sum() == 1
    pair.check_tables()


def test_a_client_s_port_may_come_by_another_vip_once_its_entry_has_expired() -> None:
    pair = Pair(checks_sockets=True)
    pair.inbound([way_in(WEB, SYN)], 1)
    pair.inbound([way_in(SECOND, SYN)], 1 + IDLE.untrusted + 1)
    assert pair.outbound([REPLY], 60)[0][2][26:30] == SECOND
    assert (pair.machine.tables.flows["state"] != 0).sum() == 1
    pair.check_tables()


def test_without_socket_checks_the_vip_of_the_last_packet_counts() -> None:
    """The same client port to two VIPs of one server: there is one entry, not many."""
    pair = Pair()
    pair.inbound([way_in(WEB)] * 3, 1)
    pair.inbound([way_in(SECOND, SYN)], 2)
    assert pair.outbound([REPLY], 2)[0][2][26:30] == SECOND
    pair.inbound([way_in(WEB), way_in(SECOND)] * 10, 3)
    assert (pair.machine.tables.flows["state"] != 0).sum() == 1
    pair.check_tables()


def test_an_entry_of_another_worker_keeps_its_connection_too() -> None:
    machine = Machine.make(workers=4)
    machine.install_agent(OWN, MUXES, endpoints(checks_sockets=True))
    machine.at(2).inbound(Frames([way_in(WEB, SYN)]), 1)
    for flags in (SYN, ACK):
        machine.at(1).inbound(forged := Frames([way_in(SECOND, flags)]), 1)
        assert forged.results()[0][0] == Verdict.UNKNOWN_CONNECTION
    machine.at(1).outbound(out := Frames([REPLY]), 1)
    assert out.results()[0][2][26:30] == WEB


def test_a_client_s_datagrams_get_their_answers_from_the_vip_of_the_last_one() -> None:
    """One socket may ask two VIPs, and nothing says which of them a datagram of the server answers."""
    machine = Machine.make()
    two = [Endpoint(vip, 53, LONE_DIP, 53, UDP, owner=1, idle=IDLE) for vip in (WEB, SECOND)]
    machine.install_agent(OWN, MUXES, two)
    question = Craft(destination_port=53, protocol=UDP)
    answer = replace(REPLY_OF, source=LONE_DIP, source_port=53, protocol=UDP).frame()
    for vip in (WEB, SECOND, WEB):
        asked = tunnelled(replace(question, destination=vip).packet(), MUXES[0], OWN[0])
        machine.worker.inbound(Frames([asked]), 1)
        machine.worker.outbound(out := Frames([answer]), 1)
        assert out.results()[0][2][26:30] == vip


def local(flags: int) -> bytes:
    return tunnelled(Craft(destination=WEB, destination_port=443, flags=flags).packet(), MUXES[0], OWN[0])


@pytest.mark.parametrize(("opening", "later"), [(way_in(WEB, SYN), way_in(WEB)), (local(SYN), local(ACK))])
def test_a_connection_is_known_from_its_first_packet_on(opening: bytes, later: bytes) -> None:
    pair = Pair(checks_sockets=True)
    verdicts = [verdict for verdict, *_ in pair.inbound([later, opening, later], 1)]
    assert verdicts == [Verdict.UNKNOWN_CONNECTION, Verdict.DELIVERED, Verdict.DELIVERED]
    pair.check_tables()


@pytest.mark.parametrize("later", [way_in(WEB), local(ACK)])
def test_a_connection_marked_known_local_gets_an_entry(later: bytes) -> None:
    pair = Pair(checks_sockets=True)
    assert pair.inbound([later], 1, KNOWN_LOCAL)[0][0] == Verdict.DELIVERED
    assert pair.inbound([later], 2)[0][0] == Verdict.DELIVERED
    pair.check_tables()


RESET = Craft(
    source=DIP, source_port=8080, destination=Craft().source, destination_port=Craft().source_port, flags=RST
)  # fmt: skip


OF_VIP = replace(RESET, source=WEB, source_port=443)


@pytest.mark.parametrize(
    ("opening", "later", "reset", "target"),
    [(way_in(WEB, SYN), way_in(WEB), RESET, 0), (local(SYN), local(ACK), OF_VIP, 3)],
    ids=["translated", "local"],
)
def test_the_reset_of_a_connection_that_the_stack_denies_is_suppressed(
    opening: bytes, later: bytes, reset: Craft, target: int
) -> None:
    """The entry was of an older connection of the same ends, and the mux that had it sends to the wrong host."""
    pair = Pair(checks_sockets=True)
    assert pair.inbound([opening, later], 1)[1][0] == Verdict.DELIVERED
    refusal = reset.frame()
    held, next_one = pair.outbound([refusal] * 2, 2)
    assert [held, next_one[0]] == [(Verdict.RESET_SUPPRESSED, target, refusal), Verdict.NOT_TRANSLATED]
    assert pair.inbound([later], 3)[0][0] == Verdict.UNKNOWN_CONNECTION
    pair.check_tables()


@pytest.mark.parametrize(("checks_sockets", "flags"), [(False, RST), (True, RST | ACK)])
def test_a_reset_of_the_connection_or_without_socket_checks_goes_to_the_client(
    checks_sockets: bool, flags: int
) -> None:
    pair = Pair(checks_sockets=checks_sockets)
    pair.inbound([way_in(WEB, SYN), local(SYN)], 1)
    resets = [replace(reset, flags=flags).frame() for reset in (RESET, OF_VIP)]
    assert [verdict for verdict, *_ in pair.outbound(resets, 2)] == [Verdict.REPLIED, Verdict.NOT_TRANSLATED]
    pair.check_tables()


def test_a_connection_that_the_stack_denies_is_forgotten_on_another_worker_too() -> None:
    machine = Machine.make(64, workers=3)
    machine.install_agent(OWN, MUXES, endpoints(checks_sockets=True))
    for number in (0, 2):
        Worker(machine.tables, number).inbound(Frames([way_in(WEB, SYN)]), 1)
    assert (machine.tables.flows["state"] != 0).sum() == 1
    Worker(machine.tables, 1).outbound(batch := Frames([RESET.frame()]), 2)
    assert batch.results()[0][0] == Verdict.RESET_SUPPRESSED
    assert not machine.tables.flows["state"].any()


def test_an_unknown_connection_s_frame_stays_in_its_tunnel() -> None:
    frame = way_in(WEB)
    assert Pair(checks_sockets=True).inbound([frame], 1) == [(Verdict.UNKNOWN_CONNECTION, 0, frame)]


def test_other_traffic_of_the_dip_passes() -> None:
    pair = Pair()
    pair.inbound([way_in(WEB)], 1)
    other_port = Craft(source=DIP, source_port=22, destination=Craft().source, destination_port=40000).frame()
    assert pair.outbound([other_port], 1) == [(Verdict.NOT_TRANSLATED, -1, other_port)]


def test_a_tunnelled_packet_from_no_mux_is_dropped() -> None:
    frame = tunnelled(Craft(destination=WEB).packet(), STRANGER, OWN[0])
    assert Pair().inbound([frame], 1) == [(Verdict.NOT_A_MUX, -1, frame)]
    assert Verdict.NOT_A_MUX.kind == "drop"


def test_a_tunnelled_packet_to_another_address_passes_to_the_kernel() -> None:
    frame = tunnelled(Craft(destination=WEB).packet(), MUXES[0], STRANGER)
    assert Pair().inbound([frame], 1) == [(Verdict.NOT_TUNNELLED, -1, frame)]


def test_an_inner_packet_longer_than_the_outer_one_is_malformed() -> None:
    """The header is refused even if the frame's padding could hold it."""
    inner = Craft(destination=WEB, payload=b"abcd").packet()
    frame = tunnelled(inner, MUXES[0], OWN[0], length=20 + len(inner) - 4)
    assert Pair().inbound([frame], 1) == [(Verdict.MALFORMED, -1, frame)]


def test_mode_local_keeps_the_inner_packet() -> None:
    inner = Craft(destination=WEB, destination_port=443, check="wrong").packet()
    pair = Pair()
    (verdict, target, frame), *_ = pair.inbound([tunnelled(inner, MUXES[1], OWN[1])], 1)
    assert (verdict, target, frame[14:]) == (Verdict.DELIVERED, 3, inner)
    assert (pair.machine.tables.flows["state"] != 0).sum() == 0


def test_a_reply_finds_a_flow_of_another_worker() -> None:
    """A reply may leave on another CPU in the kernel."""
    machine = Machine.make(workers=4)
    machine.install_agent(OWN, MUXES, endpoints())
    came_in = Frames([way_in(WEB)])
    machine.at(2).inbound(came_in, 1)
    out = Frames([REPLY])
    machine.at(1).outbound(out, 1)
    verdict, target, frame = out.results()[0]
    assert (verdict, target, frame[26:30]) == (Verdict.REPLIED, 0, WEB)


@pytest.mark.parametrize(
    "options, after",
    [
        (b"\x02\x04\x05\xb4", b"\x02\x04\x04\xb0"),
        (b"\x02\x04\x02\x00", b"\x02\x04\x02\x00"),
        (b"\x01\x01\x01\x01", b"\x01\x01\x01\x01"),
        (b"", b""),
    ],
    ids=["larger", "smaller", "none", "no options"],
)
def test_a_syn_ack_offers_no_more_than_fits_the_tunnel(options: bytes, after: bytes) -> None:
    pair = Pair()
    pair.inbound([way_in(WEB, SYN)], 1)
    reply = Craft(source=DIP, source_port=8080, destination=Craft().source, destination_port=Craft().source_port)
    syn_ack = replace(reply, flags=SYN | ACK, tcp_options=options).frame()
    plain_ack = replace(reply, tcp_options=options).frame()
    (_, _, clamped), (_, _, untouched) = pair.outbound([syn_ack, plain_ack], 1)
    assert (clamped[54 : 54 + len(options)], untouched[54 : 54 + len(options)]) == (after, options)
    packet = parse(clamped)
    assert isinstance(packet, Packet)
    assert int.from_bytes(clamped[50:52]) == transport_checksum(clamped, packet)


def test_bytes_behind_the_packet_that_look_like_an_mss_stay() -> None:
    """A header that claims to be longer than its packet, in a frame with padding."""
    pair = Pair()
    pair.inbound([way_in(WEB, SYN)], 1)
    reply = Craft(source=DIP, source_port=8080, destination=Craft().source, destination_port=Craft().source_port)
    frame = bytearray(replace(reply, flags=SYN | ACK, padding=MSS_1460).frame())
    frame[14 + 20 + 12] = 0xF0
    ((_, _, after),) = pair.outbound([bytes(frame)], 1)
    assert after.endswith(MSS_1460)


def from_dip(flags: int = ACK, **fields: Any) -> bytes:
    return replace(RESET, flags=flags, **fields).frame()


def test_a_reply_that_has_lost_its_entry_is_not_passed_on() -> None:
    """It would leave with the DIP as its source, and the client's reset would end the connection."""
    pair = Pair()
    assert [verdict for verdict, *_ in pair.outbound([from_dip(ACK), from_dip(ACK | 1)], 1)] == [
        Verdict.UNKNOWN_REPLY, Verdict.UNKNOWN_REPLY,
    ]  # fmt: skip
    pair.inbound([way_in(WEB)], 2)
    assert pair.outbound([from_dip(ACK)], 2)[0][0] == Verdict.REPLIED
    assert pair.outbound([from_dip(ACK)], 500)[0][0] == Verdict.UNKNOWN_REPLY, "idle for too long"
    pair.check_tables()


@pytest.mark.parametrize("checks_sockets", [False, True])
def test_a_connection_straight_to_the_dip_is_known_by_its_syn_ack(checks_sockets: bool) -> None:
    pair = Pair(checks_sockets=checks_sockets)
    replies = [from_dip(SYN | ACK), from_dip(ACK), from_dip(RST | ACK)]
    assert pair.outbound(replies, 1) == [(Verdict.NOT_TRANSLATED, -1, reply) for reply in replies]
    verdict = pair.inbound([way_in(WEB, SYN)], 2)[0][0]
    reply = pair.outbound([from_dip(ACK)], 2)[0][0]
    if checks_sockets:
        assert (verdict, reply) == (Verdict.UNKNOWN_CONNECTION, Verdict.NOT_TRANSLATED), "it is not the VIP's"
    else:
        assert (verdict, reply) == (Verdict.DELIVERED, Verdict.REPLIED), "the newer counts"
    pair.check_tables()


@pytest.mark.parametrize("checks_sockets", [False, True])
def test_a_connection_straight_to_the_dip_that_the_stack_denies_is_over(checks_sockets: bool) -> None:
    pair = Pair(checks_sockets=checks_sockets)
    assert [result[0] for result in pair.outbound([from_dip(SYN | ACK), from_dip(RST)], 1)] == [
        Verdict.NOT_TRANSLATED
    ] * 2
    assert (pair.machine.tables.flows["state"] != 0).sum() == (not checks_sockets)
    pair.check_tables()


def test_a_datagram_without_an_entry_leaves_unchanged() -> None:
    pair = Pair()
    reply = replace(RESET, source=LONE_DIP, source_port=53, protocol=UDP).frame()
    assert pair.outbound([reply], 1) == [(Verdict.UNTRACKED, -1, reply)]
    pair.check_tables()


def test_fragments_and_icmp_errors_of_a_backend_differ_from_others() -> None:
    pair = Pair()
    kinds = {3: True, 4: True, 5: True, 11: True, 12: True, 0: False, 8: False, 13: False}
    for source, is_backend in ((DIP, True), (STRANGER, False)):
        fragments = [from_dip(source=source, fragment=field) for field in (0x2000, 0x0010)]
        fragment = Verdict.REPLY_FRAGMENT if is_backend else Verdict.FRAGMENT
        assert [verdict for verdict, *_ in pair.outbound(fragments, 1)] == [fragment] * 2
        messages = [icmp_from(source, bytes([kind]) + bytes(7)) for kind in kinds]
        wanted = [Verdict.REPLY_ICMP if error and is_backend else Verdict.ICMP for error in kinds.values()]
        assert [verdict for verdict, *_ in pair.outbound(messages, 1)] == wanted
    pair.check_tables()


def icmp_from(source: bytes, message: bytes) -> bytes:
    frame = Craft(source=source, destination=Craft().source, protocol=1, payload=b"").frame()
    return frame[:34] + message


@pytest.mark.parametrize(
    ("kind", "is_error"), [(1, True), (2, True), (4, True), (128, False), (129, False), (136, False)]
)
def test_icmpv6_errors_of_a_backend_differ_from_neighbour_discovery(kind: int, is_error: bool) -> None:
    vip, dip = bytes([0x20, 1, *bytes(13), 1]), bytes([0x20, 1, *bytes(13), 2])
    machine = Machine.make(64)
    served = [Endpoint(vip, 80, dip, 8080, TCP, owner=3)]
    machine.install_agent(OWN, MUXES, served)
    plain = PlainAgent(OWN, MUXES, served, PlainFlows(machine.keys, 64))
    packet = b"\x60\0\0\0" + (8).to_bytes(2) + bytes([58, 64]) + dip + vip + bytes([kind, *bytes(7)])
    frame = bytes(12) + b"\x86\xdd" + packet
    batch = Frames([frame])
    machine.worker.outbound(batch, 1)
    assert batch.results() == [plain.outbound(frame, 1)]
    assert batch.results()[0][0] == (Verdict.REPLY_ICMP if is_error else Verdict.ICMP)
