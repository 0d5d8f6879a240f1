"""The mux against its plain twin, over random frames: same verdict, backend, bytes, counters and flow entries."""

import random
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbmux.datapath.frame import UNFINISHED_CHECKSUM
from lbmux.datapath.tables import FORMER_TABLE, LOOKUPS, NO_BASE
from lbmux.datapath.verdicts import Verdict
from tests.datapath.craft import Craft, Stream, tag
from tests.datapath.harness import SOURCES, Frames, Machine
from tests.datapath.plain_flows import Idle, PlainFlows
from tests.datapath.plain_mux import FIELDS, Backend, PlainMux, Service
from tests.datapath.plain_packet import TCP, UDP

WEB, DNS, EMPTY, OTHER = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]), bytes([192, 0, 2, 3]), bytes([203, 0, 113, 9])
WEB6, DNS6 = (IPv6Address(f"2001:db8::{at}").packed for at in (1, 2))
LOCAL6 = IPv6Address("2001:db8:9::1").packed
IDLE = Idle(untrusted=50, trusted=400, closing=20)
LIMITS = (40 << 22, 60 << 22, 300 << 22)
"""Rate limits: one packet, new flow and reject in so many ticks."""
NO_SLOT = 0xFFFF


def services() -> list[Service]:
    """Two ports of one VIP, one of UDP, one without backends, one with holes in its table (both tell clients so, the
    second at a limited rate); two of IPv6; one with any port and an access list, one of QUIC; three with rate limits;
    each hashes other fields."""
    pick = random.Random(5)
    return [
        Service(WEB, TCP, 80, tuple(pick.choices(range(6), k=251)), IDLE, seed=1),
        half_changed(Service(WEB, TCP, 443, tuple(pick.choices(range(3, 9), k=65)), Idle(500, 300, 10), 0xFFFFFFFF)),
        Service(DNS, UDP, 53, tuple(pick.choices([1, 2, NO_SLOT], k=31)), IDLE, seed=7, prices=LIMITS, rejects=True),
        Service(EMPTY, TCP, 80, (), IDLE, rejects=True),
        half_changed(Service(EMPTY, TCP, 443, (), IDLE, seed=3)),
        Service(WEB6, TCP, 80, tuple(pick.choices(range(9), k=251)), IDLE, seed=1),
        Service(DNS6, UDP, 53, tuple(pick.choices(range(9), k=31)), IDLE, hashed=frozenset({"source"})),
        half_changed(
            Service(WEB, UDP, 0, tuple(pick.choices(range(9), k=65)), IDLE, hashed=FIELDS - PORTS, rules=RULES)
        ),
        Service(
            DNS,
            TCP,
            0,
            tuple(pick.choices(range(9), k=65)),
            IDLE,
            prices=LIMITS,
            hashed=frozenset({"destination_port"}),
        ),
        half_changed(
            Service(
                DNS6,
                UDP,
                443,
                tuple(pick.choices(range(9), k=65)),
                IDLE,
                prices=LIMITS,
                quic=(2, 1, {b"\0": 7, b"\x01": 1}),
            )
        ),
        Service(WEB6, TCP, 443, tuple(pick.choices(range(9), k=65)), IDLE, tracking="none"),
    ]


def half_changed(service: Service) -> Service:
    """Track changed slots only: some are steady, some are changing, some have exceptions, some had another size."""
    pick = random.Random(9)
    bases = tuple(pick.choice((backend, pick.randrange(9), NO_BASE, FORMER_TABLE)) for backend in service.slots)
    former = tuple((pick.randrange(9), pick.choice((pick.randrange(9), NO_BASE))) for _ in range(31))
    return replace(service, tracking="changed", bases=bases, former=former, changed=200)


PORTS = frozenset({"source_port", "destination_port"})
RULES = (
    (IPv4Network("198.18.0.0/15"), True),
    (IPv4Network("198.18.128.0/17"), False),
    (IPv4Network("198.18.192.0/18"), True),
    (IPv4Network("198.18.0.0/24"), False),
)


def backends() -> list[Backend]:
    """Return backends with every kind of encapsulation, in IPv4 and IPv6: one whose MAC address is unknown, one behind
    a small and one behind a large MTU, one that drains."""
    rows = [Backend(bytes([10, 1, 0, at]), bytes([2, 0, 0, 7, 0, at]), generation=at) for at in range(9)]
    rows[2].destination_mac = bytes(6)
    rows[3].mtu, rows[4].mtu = 576, 9000
    rows[5].state = 2
    for at, kind in {3: "gue1", 4: "gue0", 5: "gre", 6: "geneve", 7: "direct", 8: "gue1"}.items():
        rows[at].kind = kind
    for at in (1, 4, 6, 8):
        rows[at].local, rows[at].remote = LOCAL6, IPv6Address(f"2001:db8:7::{at}").packed
    for at in range(9):
        rows[at].price, rows[at].service = (0, 100 << 22, 500 << 22)[at % 3], (2, 8, 9)[at // 3]
    for at in (0, 8):
        rows[at].spread, rows[at].local = True, rows[at].local[:-2] + bytes(2)
    return rows


class Pair:
    """The compiled mux and its twin, with the same set-up."""

    def __init__(
        self,
        buckets: int,
        trusted_ways: int = 3,
        untrusted_ways: int = 4,
        plain: bool = False,
        rows: tuple[list[Service], list[Backend]] | None = None,
    ) -> None:
        configured, self.backends = rows or (services(), backends())
        self.machine = Machine.make(buckets, trusted_ways, untrusted_ways, plain=plain)
        self.machine.install_mux(configured, self.backends)
        flows = PlainFlows(self.machine.keys, buckets, trusted_ways, untrusted_ways)
        self.plain = PlainMux(configured, self.backends, flows, plain, SOURCES)

    def run(self, frames: list[bytes], now: int, flags: list[int]) -> None:
        batch = Frames(frames, flags)
        self.machine.worker.forward(batch, now)
        for frame, flag, result in zip(frames, flags, batch.results(), strict=True):
            assert result == self.plain.run(frame, now, flag), frame.hex()
        assert batch.untouched_around()

    def change_backend(self, at: int, generation: int, state: int) -> None:
        self.backends[at].generation, self.backends[at].state = generation, state
        row = self.machine.tables.backends[at]
        row["generation"], row["state"] = generation, state

    def check_tables(self) -> None:
        tables, counters = self.machine.tables, self.plain.counters
        assert self.plain.flows.differences(tables.flows) == []
        assert {k: v for k, v in self.machine.lookups().items() if v} == dict(self.plain.flows.lookups)
        assert self.machine.known_sources() == {
            place: time for place, time in self.plain.known.cells.items() if time >= 0
        }
        assert self.machine.verdicts() == {v: (n, counters.verdict_bytes[v]) for v, n in counters.verdicts.items()}
        for at in range(len(self.backends)):
            row = tables.traffic[0, at]
            assert row["packets"] == counters.packets[at]
            assert row["bytes"] == counters.bytes[at]
            assert row["flows"] == counters.flows[at]
            assert row["admitted"] == counters.admitted[at]


def destinations() -> list[tuple[bytes, int, int]]:
    known = [(service.vip, service.protocol, service.port) for service in services()]
    return [
        *known,
        known[0],
        known[0],
        known[2],
        known[4],
        (OTHER, TCP, 80),
        (WEB, UDP, 80),
        (DNS, TCP, 9),
        (DNS6, TCP, 9),
    ]


@pytest.mark.parametrize(("trusted_ways", "untrusted_ways"), [(3, 2), (3, 4), (2, 1), (4, 4)])
@pytest.mark.parametrize("buckets", [1, 16, 1024])
def test_agrees_with_the_plain_mux(buckets: int, trusted_ways: int, untrusted_ways: int) -> None:
    pair = Pair(buckets, trusted_ways, untrusted_ways)
    seed = 1000 * buckets + 10 * trusted_ways + untrusted_ways
    stream, pick = Stream(seed, destinations()), random.Random(seed)
    frames, now = stream.frames(), 0xFFFFFF00  # the clock wraps during the run
    for _ in range(60):
        some = list(islice(frames, pick.randint(1, 60)))
        flags = pick.choices([0, UNFINISHED_CHECKSUM], [9, 1], k=len(some))
        pair.run(some, now, flags)
        now = (now + pick.choice([0, 1, 3, 10, 25, 60, 450, -2])) & 0xFFFFFFFF
        if pick.random() < 0.2:
            pair.change_backend(pick.randrange(9), pick.choice([0, 1, 255]), pick.choice([0, 1, 2]))
    pair.check_tables()


def test_the_stream_meets_every_case() -> None:
    """The stream must reach every case, or the agreement above would prove little.

    A bucket may have four trusted flows.
    """
    pair, now = Pair(4, 4, 2), 0
    stream = Stream(77, destinations(), flows=40)
    frames = stream.frames()
    for turn in range(60):
        pair.run(list(islice(frames, 50)), now, [0] * 50)
        now += 1 if turn % 10 else 90
        pair.change_backend(turn % 9, turn % 2, 1)
    elsewhere = {"NO_HEADROOM", "UNSENT", "OUT_OF_TABLE", "REJECT", "BLACK_HOLED"}  # the last one: test_gate.py
    of_the_mux = {v for v in Verdict if v.name not in AGENT_ONLY | elsewhere}
    assert set(pair.plain.counters.verdicts) == of_the_mux
    assert set(pair.plain.flows.lookups) == set(LOOKUPS) - {"contended"}
    pair.check_tables()


AGENT_ONLY = {
    "DELIVERED", "REPLIED", "NOT_TUNNELLED", "NOT_TRANSLATED", "NOT_A_MUX", "NO_LOCAL_BACKEND", "CONGESTED",
    "UNKNOWN_CONNECTION", "RESET_SUPPRESSED", "HAIRPIN", "UNKNOWN_REPLY", "UNTRACKED", "REPLY_FRAGMENT",
    "REPLY_ICMP",
}  # fmt: skip

crafts = st.builds(
    Craft,
    source=st.binary(min_size=4, max_size=4),
    destination=st.sampled_from([WEB, DNS, EMPTY, OTHER]),
    protocol=st.sampled_from([TCP, UDP, 1, 47]),
    source_port=st.integers(0, 65535),
    destination_port=st.sampled_from([80, 53, 443, 0, 65535]),
    payload=st.binary(max_size=64),
    flags=st.integers(0, 255),
    tos=st.integers(0, 255),
    identification=st.integers(0, 65535),
    fragment=st.sampled_from([0, 0x4000, 0x8000, 0xC000, 0x2000, 1]),
    length=st.none() | st.integers(0, 65535),
    version_ihl=st.none() | st.integers(0, 255),
    check=st.sampled_from(["right", "wrong", "zero", "unfinished"]),
    type=st.sampled_from([None] * 6 + [0x8100, 0x86DD]),
    tags=st.sampled_from([b"", b"", tag(1), tag(1) * 2, tag(1) * 3]),
    options=st.sampled_from([b"", b"", bytes(4), bytes(40)]),
    ttl=st.integers(0, 255),
)
crafts6 = st.builds(
    replace,
    crafts,
    source=st.binary(min_size=16, max_size=16),
    destination=st.sampled_from([WEB6, DNS6]),
    label=st.integers(0, 0xFFFFF),
    extensions=st.lists(
        st.tuples(st.sampled_from([0, 43, 44, 51, 60]), st.binary(min_size=7, max_size=15)), max_size=3
    ).map(tuple),
)
shaped = st.tuples((crafts | crafts6).map(Craft.frame), st.integers(0, 200)).map(lambda pair: pair[0][: pair[1]])


@given(st.lists(shaped | st.binary(max_size=80), min_size=1, max_size=8), st.integers(0, 1), st.booleans())
@settings(max_examples=150, deadline=None)
def test_agrees_on_any_shape(frames: list[bytes], flags: int, plain: bool) -> None:
    pair = Pair(4, plain=plain)
    pair.run(frames, 1, [flags] * len(frames))
    pair.check_tables()
