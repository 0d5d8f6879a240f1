"""Replies of an agent's backends: translated, suppressed, or passed on unchanged."""

from dataclasses import replace
from typing import Any

import pytest

from lbmux.datapath.verdicts import Verdict
from lbmux.targets.native import Worker
from tests.datapath.agent_pair import (
    DIP,
    LONE_DIP,
    MSS_1460,
    MUXES,
    OWN,
    REPLY,
    STRANGER,
    WEB,
    Pair,
    endpoints,
    local,
    way_in,
)
from tests.datapath.craft import ACK, RST, SYN, Craft
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_agent import Endpoint, PlainAgent
from tests.datapath.plain_flows import PlainFlows
from tests.datapath.plain_packet import TCP, UDP, Packet, parse, transport_checksum

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


def test_other_traffic_of_the_dip_passes() -> None:
    pair = Pair()
    pair.inbound([way_in(WEB)], 1)
    other_port = Craft(source=DIP, source_port=22, destination=Craft().source, destination_port=40000).frame()
    assert pair.outbound([other_port], 1) == [(Verdict.NOT_TRANSLATED, -1, other_port)]


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
