"""What the gate counts becomes usage by VIP, and black holes become its rows; over reloads too."""

from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from lbmux.daemons.vip_gate import VipGate
from lbmux.datapath.verdicts import Verdict
from lbmux.targets.regions import now_ticks
from tests.datapath.craft import ACK, SYN, Craft
from tests.datapath.harness import Frames
from tests.tables.test_mux_tables import Mux, backend, config, service

A, B = ip_address("192.0.2.1"), ip_address("192.0.2.2")
ONE, TWO = service("a", str(A), backend(1)), service("b", str(B), backend(2))


class Gated:
    """A mux in user space, with its gate open."""

    def __init__(self) -> None:
        self.mux = Mux(config(ONE, TWO))
        self.gate = VipGate(SimpleNamespace(kernel=None), self.mux.control)  # type: ignore[arg-type]
        self.gate.set(True)

    def send(self, vip: str = str(A), count: int = 1, flags: int = SYN) -> list[int]:
        destination = ip_address(vip).packed
        frames = [Craft(source=n.to_bytes(4), destination=destination, flags=flags).frame() for n in range(count)]
        batch = Frames(frames)
        self.mux.worker.forward(batch, now_ticks())
        return [verdict for verdict, *_ in batch.results()]


def test_usage_is_what_came_since_the_reading_before() -> None:
    gated = Gated()
    gated.send(count=5)
    assert gated.gate.read() == {}, "what came before the first reading is unknown"
    gated.send(count=30)
    gated.send(count=600, flags=ACK)
    found = gated.gate.read()
    assert (found[A].begins, found[A].others, found[B].packets) == (30, 600, 0)
    assert 0 < found[A].follows < found[A].judged < 100 and found[A].sources > 200
    assert gated.gate.read()[A].sources == 0


def test_a_black_hole_lasts_for_its_time_or_until_there_is_none() -> None:
    gated = Gated()
    gated.gate.drop({A: 60.0})
    assert gated.send(count=3) == [Verdict.BLACK_HOLED] * 3 and gated.gate.dropped(A) == 3
    assert gated.send(str(B)) == [Verdict.FORWARDED]
    gated.gate.drop({})
    assert gated.send() == [Verdict.FORWARDED] and gated.gate.dropped(A) == 3
    gated.gate.drop({A: 60.0})
    gated.gate.set(False)
    assert gated.send() == [Verdict.FORWARDED] and not gated.gate.is_open


def test_a_vip_whose_row_changes_has_no_usage_until_the_reading_after() -> None:
    gated = Gated()
    gated.gate.read()
    gated.send(str(B), 3)
    gated.mux.load(config(TWO))
    gated.mux.load(config(TWO, ONE))
    rows = dict(gated.mux.control.vips)
    gated.send(str(A), 2)
    found = gated.gate.read()
    assert found[B].packets == 3 and rows[B] == gated.mux.control.vips[B]
    gated.send(str(A), 2)
    assert gated.gate.read()[A].packets == 2


@pytest.mark.parametrize("kernel", [None, object()], ids=["user space", "kernel"])
def test_only_in_user_space_the_gate_is_a_setting(kernel: object) -> None:
    mux, opened = Mux(config(ONE)), list[bool]()
    program = None if kernel is None else SimpleNamespace(gate=opened.append)
    VipGate(SimpleNamespace(kernel=program), mux.control).set(True)  # type: ignore[arg-type]
    assert (mux.tables.settings[0]["gated"], opened) == ((1, []) if kernel is None else (0, [True]))
