"""The host agent against its plain twin, in and out, over random frames."""

import random
from dataclasses import replace
from itertools import islice

import pytest

from lbmux.datapath.frame import KNOWN_LOCAL
from lbmux.datapath.verdicts import Verdict
from tests.datapath.agent_pair import (
    DIP,
    IDLE,
    LONE_DIP,
    MUXES,
    OWN,
    REPLY,
    REPLY_OF,
    SECOND,
    STRANGER,
    WEB,
    Pair,
    destinations,
    endpoints,
    local,
    own_connection,
    reply_to,
    way_in,
)
from tests.datapath.craft import ACK, RST, SYN, Craft, Stream, tunnelled
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_agent import Endpoint
from tests.datapath.plain_packet import UDP, Packet, parse, transport_checksum

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


def test_an_unknown_connection_s_frame_stays_in_its_tunnel() -> None:
    frame = way_in(WEB)
    assert Pair(checks_sockets=True).inbound([frame], 1) == [(Verdict.UNKNOWN_CONNECTION, 0, frame)]


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
