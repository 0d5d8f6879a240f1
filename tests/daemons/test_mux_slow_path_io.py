"""The slow path writes learned path MTUs to the tables that the data path reads; and its sender."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.daemons import mux_slow_path_io
from lbmux.daemons.mux_slow_path_io import SlowFrames
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import Batch
from lbmux.frames.frame_copy import FrameCopy
from lbmux.linux.next_hops import NextHop
from lbmux.slowpath.mux_output import BY_ROUTE, Sent
from lbmux.slowpath.path_mtu import LIFETIME_S
from lbmux.tracing.trace_event import SlowPathNote, TraceEvent, by_route
from tests.slowpath.golden import ETHER, MUX, ip, segment
from tests.slowpath.tables import INTERFACE, Mux


class Collector:
    """A sender that keeps what it gets."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.unsent = 0

    def send(self, sent: Iterable[Sent]) -> list[Sent]:
        taken = [*sent]
        self.sent += taken
        return taken


class Case:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(mux_slow_path_io.time, "monotonic", lambda: self.now)
        self.mux, self.sender = Mux(), Collector()
        self.slow = SlowFrames(self.mux.control, self.mux.worker, self.sender)  # type: ignore[arg-type]
        ((_, self.target, frame),) = self.mux.forward(bytes(Ether(**ETHER) / ip(4, flags="DF") / segment(1400)))
        self.outer = Ether(frame).payload

    def arrive(self, packet: Any, *seen: TraceEvent) -> None:
        frame = bytes(Ether(**ETHER) / packet)
        memory, batch = np.frombuffer(frame, np.uint8), Batch(4)
        batch.address[0], batch.length[0], batch.count = memory.ctypes.data, len(frame), 1
        batch.verdict[0] = Verdict.ICMP
        self.slow.handle(batch, seen)

    def learn(self, mtu: int = 1400) -> None:
        quote = bytes(self.outer)[:528]
        self.arrive(ip(4, "10.0.9.1", MUX) / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(quote))

    @property
    def mtus(self) -> list[int]:
        """MTUs of the backends behind the host that the error was about, and of another host's."""
        rows = self.mux.tables.backends
        same = rows[self.target]["remote_low"]
        here = set(rows["mtu"][rows["remote_low"] == same].tolist())
        others = set(rows["mtu"][(rows["remote_low"] != same) & (rows["state"] != 0)].tolist())
        return [*sorted(here), *sorted(others)]


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(monkeypatch)


def test_a_learned_path_is_in_the_tables_at_once_and_out_of_them_when_it_is_forgotten(case: Case) -> None:
    assert case.mtus == [1500, 1500]
    case.learn()
    assert case.mtus == [1400, 1500] and case.slow.counters()["path_mtus"] == 1
    case.now += LIFETIME_S + 1
    case.slow.refresh()
    assert case.mtus == [1500, 1500] and case.slow.counters()["path_mtus"] == 0


def test_it_is_there_again_after_a_reload(case: Case) -> None:
    case.learn()
    case.mux.control.commit(case.mux.control.plan(case.mux.config))
    case.slow.configure()
    assert case.mtus == [1400, 1500]
    case.now += LIFETIME_S + 1
    case.slow.refresh()
    assert case.mtus == [1500, 1500]


def test_it_is_there_again_after_the_next_hop_has_changed(case: Case) -> None:
    case.learn()
    case.mux.control.set_next_hop(ip_address(case.outer.dst), NextHop(INTERFACE, 1, 2, 9000))
    case.slow.refresh()
    assert case.mtus == [1400, 1500]
    case.now += LIFETIME_S + 1
    case.slow.refresh()
    assert case.mtus == [9000, 1500]


def test_the_client_gets_an_icmp_error(case: Case) -> None:
    case.learn()
    (sent,) = case.sender.sent
    assert IP(sent.data)[ICMP].nexthopmtu == 1380


def test_a_trace_client_sees_what_was_done_with_a_frame(case: Case) -> None:
    ping, bare = ip(4) / ICMP(id=7), ip(4) / ICMP(type=3, code=1)
    seen = [TraceEvent(FrameCopy(b"", 0, 0, 0), Verdict.ICMP) for _ in range(3)]
    case.arrive(ping, seen[0])
    assert seen[0].slow is not None and seen[0].slow.did == ["echo_answered"]
    (answer,) = seen[0].slow.sent
    assert (answer.data, answer.interface) == (case.sender.sent[0].data, 0)
    assert Ether(answer.data)[ICMP].type == 0
    case.arrive(bare, seen[1])
    assert seen[1].slow == SlowPathNote(["icmp_unusable"], [])
    case.arrive(ip(4, "10.0.9.1", MUX) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(bytes(case.outer)[:528]), seen[2])
    assert seen[2].slow is not None and seen[2].slow.did == ["path_mtu_learned", "outer_error_relayed"]
    (by_route,) = seen[2].slow.sent
    assert by_route.interface == BY_ROUTE and Ether(by_route.data)[ICMP].nexthopmtu == 1380


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_that_leaves_by_route_is_shown_as_a_frame(family: int) -> None:
    shown = by_route(bytes(ip(family) / segment(10)))
    assert bytes(Ether(shown.data).payload) == bytes(ip(family) / segment(10))
    assert shown.length == len(shown.data)


def test_frames_are_sent_without_a_trace_client(case: Case) -> None:
    case.arrive(ip(4) / ICMP())
    assert len(case.sender.sent) == 1


def test_frames_with_other_verdicts_stay_unchanged(case: Case) -> None:
    batch = Batch(4)
    batch.count = 4
    batch.verdict[:] = [Verdict.FORWARDED, Verdict.NOT_IP, Verdict.NO_NEIGHBOUR, Verdict.DENIED]
    case.slow.handle(batch)  # their addresses are 0: reading one would crash the test
    assert case.sender.sent == []
