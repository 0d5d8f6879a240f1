"""Kernel and native target agree: same action, same bytes, same counters, same flow entries, on any frame."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import pytest

from lbmux.datapath.verdicts import Verdict
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import on_first_cpu
from lbmux.targets.bpf.xdp_programs import TCX_DROP, TCX_NEXT, TCX_REDIRECT, XDP_DROP, XDP_PASS, XDP_TX
from tests.datapath import test_ordinary
from tests.datapath.agent_pair import MUXES, OWN, STRANGER, endpoints, own_connection, reply_to
from tests.datapath.agent_pair import destinations as agent_destinations
from tests.datapath.craft import Craft, Stream, tunnelled
from tests.datapath.harness import Machine
from tests.datapath.plain_packet import UDP
from tests.datapath.test_mux import AGENT_ONLY, DNS6, WEB6, backends, destinations, services
from tests.targets.bpf.twins import ETHERNET_BYTES, Twins

pytestmark = pytest.mark.root
XDP_REDIRECT = 4
LOOPBACK, ELSEWHERE = 1, 7
"""A test run's frames come in by the loopback interface."""
FRAMES_A_STREAM, TURNS = 16_000, 16


@pytest.fixture(autouse=True)
def _one_cpu() -> Iterator[None]:
    with on_first_cpu():
        yield


def mux(buckets: int, trusted_ways: int = 3, untrusted_ways: int = 4) -> Twins:
    """Return a mux with backends behind the interface where frames arrive, behind another, and behind either."""
    machine = Machine.make(buckets, trusted_ways, untrusted_ways, plain=True)
    machine.install_mux(services(), backends())
    machine.tables.backends["interface"][:3] = 0, LOOPBACK, ELSEWHERE
    machine.tables.backends["interface"][6] = ELSEWHERE
    return Twins(machine, {"mux_xdp": Attach.XDP})


def mux_action(verdict: Verdict, interface: int) -> int:
    if verdict.kind != "send":
        return XDP_PASS if verdict.kind == "pass" else XDP_DROP
    return XDP_TX if interface in (0, LOOPBACK) else XDP_REDIRECT


def assert_mux_agrees(twins: Twins, frames: Sequence[bytes]) -> set[Verdict]:
    frames = [frame for frame in frames if len(frame) >= ETHERNET_BYTES]
    runs, batch = twins.run("mux_xdp", frames)
    met, interfaces = set(), batch.interface.tolist()
    native = [(*result, interface) for result, interface in zip(batch.results(), interfaces, strict=True)]
    for frame, run, (verdict, _, after, interface) in zip(frames, runs, native, strict=True):
        assert (run.result, run.frame) == (mux_action(verdict, interface), after), frame.hex()
        met.add(verdict)
    return met


SHAPES = [(1, 3, 4), (16, 3, 4), (1024, 3, 4), (16, 2, 1), (4, 4, 2), (16, 4, 4), (2, 1, 2)]


@pytest.mark.parametrize(("buckets", "trusted_ways", "untrusted_ways"), SHAPES)
def test_a_stream_through_the_mux(buckets: int, trusted_ways: int, untrusted_ways: int) -> None:
    """Known flows, new ones, evictions, idle ones, FIN and RST, and every fifth frame broken in some way."""
    seed = 100 * buckets + 10 * trusted_ways + untrusted_ways
    frames, pick = Stream(seed, destinations()).frames(), random.Random(seed)
    now = 0xFFFFFF00  # the clock wraps during the run
    with mux(buckets, trusted_ways, untrusted_ways) as twins:
        for _ in range(TURNS):
            twins.set_time(now)
            assert_mux_agrees(twins, list(islice(frames, FRAMES_A_STREAM // TURNS)))
            now = (now + pick.choice([0, 1, 10, 25, 60, 450, -2])) & 0xFFFFFFFF
            at, generation, state = pick.randrange(9), pick.choice([0, 1, 255]), pick.choice([0, 1, 2])
            for tables in twins.both():
                tables.backends[at]["generation"], tables.backends[at]["state"] = generation, state
            twins.assert_same_tables()


@test_ordinary.both
def test_ordinary_packets_through_the_mux(version: int) -> None:
    machine = Machine.make(64, plain=True)
    machine.install_mux(test_ordinary.services(version), test_ordinary.backends(version))
    machine.tables.backends["interface"][:2] = LOOPBACK, ELSEWHERE
    with Twins(machine, {"mux_xdp": Attach.XDP}) as twins:
        stream = Stream(8, test_ordinary.destinations(version))
        met = assert_mux_agrees(twins, list(islice(stream.frames(), 2000)))
        assert Verdict.FORWARDED in met
        twins.assert_same_tables()


def test_the_stream_meets_every_case() -> None:
    """The stream must reach every case, or the agreement above would prove little."""
    with mux(4, 4, 2) as twins:
        met = assert_mux_agrees(twins, list(islice(Stream(77, destinations()).frames(), 4000)))
        never = {"NO_HEADROOM", "UNSENT", "OUT_OF_TABLE", "BLACK_HOLED"}  # the last one: test_gate_program.py
        assert met == {verdict for verdict in Verdict if verdict.name not in AGENT_ONLY | never}
        looked_up = dict(zip(("hit", "new", "evicted", "full"), twins.kernel.tables.lookups[0], strict=False))
        assert all(looked_up.values()), looked_up


def bases() -> list[Craft]:
    tcp = Craft(payload=b"a payload", padding=b"pad")
    udp = replace(tcp, destination=destinations()[2][0], protocol=UDP, destination_port=53)
    kinds = [tcp, udp, replace(udp, check="zero"), replace(tcp, options=b"\1" * 8), replace(tcp, fragment=0x2000)]
    kinds += [replace(udp, fragment=0x0010), replace(tcp, protocol=1), replace(tcp, protocol=47)]
    kinds += [replace(tcp, type=kind) for kind in (0x8100, 0x88A8, 0x86DD, 0x0806)]
    tcp6 = replace(tcp, source=WEB6[:-1] + b"\x77", destination=WEB6)
    kinds += [tcp6, replace(tcp6, protocol=UDP, destination=DNS6, destination_port=53)]
    kinds += [replace(tcp6, protocol=58), replace(tcp6, extensions=((0, bytes(7)),))]
    return kinds


IPV6 = [craft for craft in bases() if craft.is_ipv6 and not craft.extensions and craft.protocol != 58]


def truncations() -> Iterator[bytes]:
    for craft in bases():
        frame = craft.frame()
        yield from (frame[:length] for length in range(ETHERNET_BYTES, len(frame) + 1))


def wrong_bytes() -> Iterator[bytes]:
    """Every byte of the headers with some values that it should not have."""
    for craft in (*bases()[:2], *IPV6):
        frame = craft.frame()
        for at in range(12, 54 + 20 * craft.is_ipv6):
            for value in (0, 1, 0x3F, 0x40, 0x44, 0x46, 0x4F, 0x7F, 0x80, 0xFF, frame[at] ^ 1, frame[at] ^ 0x80):
                yield frame[:at] + bytes([value]) + frame[at + 1 :]


def lying_lengths() -> Iterator[bytes]:
    for craft in (*bases()[:2], *IPV6):
        size = len(craft.packet())
        for length in (*range(size + 8), *range(1490, 1530), 0x7FFF, 0x8000, 0xFFFF):
            yield replace(craft, length=length).frame()


def sizes() -> Iterator[bytes]:
    """Return lengths from the smallest to a little more than fits a tunnel of 1500 bytes."""
    for craft in (*bases()[:2], *IPV6):
        for length in (*range(20), *range(1400, 1500)):
            yield replace(craft, payload=bytes(length), padding=b"").frame()


@pytest.mark.parametrize("kind", [truncations, wrong_bytes, lying_lengths, sizes])
def test_the_mux_on_every(kind) -> None:  # type: ignore[no-untyped-def]
    with mux(64) as twins:
        assert_mux_agrees(twins, list(kind()))
        twins.assert_same_tables()


def jumbos() -> Iterator[bytes]:
    """Return frames of several buffers in the kernel, up to a little more than fits a tunnel of 9000 bytes."""
    for craft in (*bases()[:2], *IPV6):
        for length in (1480, 1600, 3000, 3500, 4500, 8800, 8900, 8950, 8990):
            yield replace(craft, payload=bytes(length), padding=b"").frame()


def test_the_mux_on_frames_of_several_buffers() -> None:
    with mux(64) as twins:
        for tables in twins.both():
            tables.backends["mtu"] = 9000
        assert {Verdict.FORWARDED, Verdict.TOO_BIG} <= assert_mux_agrees(twins, list(jumbos()))
        twins.assert_same_tables()


PUNTED = (Verdict.UNKNOWN_REPLY, Verdict.REPLY_FRAGMENT, Verdict.REPLY_ICMP)


def agent() -> Twins:
    machine = Machine.make(64, plain=True)
    machine.install_agent(OWN, MUXES, endpoints(checks_sockets=True))
    machine.tables.settings[0]["punt_interface"] = ELSEWHERE
    return Twins(machine, {"agent_xdp": Attach.XDP, "agent_tc": Attach.TCX_EGRESS})


def least(program: str, frame: bytes) -> int:
    """What a test run takes: of a tc program, where the type says so, a whole IP header."""
    header = {b"\x08\x00": 20, b"\x86\xdd": 40}.get(frame[12:14], 0)
    return ETHERNET_BYTES + (header if program == "agent_tc" else 0)


def assert_agent_agrees(twins: Twins, program: str, frames: Sequence[bytes]) -> list[tuple[Verdict, int, bytes]]:
    frames = [frame for frame in frames if len(frame) >= least(program, frame)]
    runs, batch = twins.run(program, frames)
    native = batch.results()
    sent = {"agent_xdp": (XDP_PASS, XDP_DROP), "agent_tc": (TCX_NEXT & 0xFFFFFFFF, TCX_DROP)}[program]
    for frame, run, (verdict, _, after) in zip(frames, runs, native, strict=True):
        is_elsewhere = verdict == Verdict.HAIRPIN or (program == "agent_tc" and verdict in PUNTED)
        action = TCX_REDIRECT if is_elsewhere else sent[verdict.kind == "drop"]
        assert (run.result, run.frame) == (action, after), frame.hex()
    return native


ODD = [(Craft(source=e.dip, payload=bytes([kind, *bytes(9)])), protocol)
       for e in endpoints() for kind in (3, 8, 11) for protocol in (1, UDP)]  # fmt: skip
"""Fragments and ICMP messages of backends."""


def test_a_stream_through_the_agent_and_its_replies_back() -> None:
    pick = random.Random(9)
    inner, outer_broken = Stream(9, agent_destinations(), flows=150), Stream(10, [(OWN[0], 4, 0)]).frames()
    frames, met = inner.frames(), set()
    with agent() as twins:
        for turn in range(TURNS):
            twins.set_time(30 * turn)
            arriving = [
                next(outer_broken)
                if pick.random() < 0.05
                else tunnelled(
                    frame[14:],
                    pick.choice([*MUXES * 20, STRANGER]),
                    pick.choice([*OWN * 20, STRANGER]),
                    tos=pick.getrandbits(8),
                    fragment=pick.choice([0, 0x4000, 0x4000, 0x4000, 0x2000]),
                )[: pick.choice([None] * 30 + [pick.randint(14, 80)])]
                for frame in islice(frames, 600)
            ]
            arriving += [own_connection(pick) for _ in range(30)]
            came = assert_agent_agrees(twins, "agent_xdp", arriving)
            leaving = [
                reply_to(frame, pick.randbytes(pick.randrange(20)))
                for verdict, _, frame in came
                if verdict == Verdict.DELIVERED and frame[14] == 0x45
            ]
            odd = [replace(craft, protocol=protocol, fragment=pick.choice([0, 0x2000])) for craft, protocol in ODD]
            odd_frames = [craft.frame() for craft in odd]
            went = assert_agent_agrees(twins, "agent_tc", [*leaving, *odd_frames, *islice(frames, 50)])
            met |= {verdict for verdict, *_ in came + went}
            twins.assert_same_tables()
    wanted = {"DELIVERED", "REPLIED", "UNKNOWN_CONNECTION", "RESET_SUPPRESSED", "NOT_TUNNELLED", "NOT_TRANSLATED"}
    wanted |= {"NOT_A_MUX"}
    wanted |= {"NO_LOCAL_BACKEND", "FRAGMENT", "HAIRPIN", "UNKNOWN_REPLY", "UNTRACKED", "REPLY_FRAGMENT", "REPLY_ICMP"}
    assert wanted <= {verdict.name for verdict in met}


def test_the_agent_on_every_truncation() -> None:
    inner = [
        Craft(destination=vip, protocol=protocol, destination_port=port) for vip, protocol, port in agent_destinations()
    ]
    whole = [tunnelled(craft.packet(), MUXES[0], OWN[0]) for craft in inner]
    replies = [Craft(source=e.dip, source_port=e.dip_port, protocol=e.protocol).frame() for e in endpoints()]
    with agent() as twins:
        for program, frames in (("agent_xdp", whole), ("agent_tc", replies)):
            cut = [frame[:length] for frame in frames for length in range(ETHERNET_BYTES, len(frame) + 1)]
            assert_agent_agrees(twins, program, cut)
        twins.assert_same_tables()
