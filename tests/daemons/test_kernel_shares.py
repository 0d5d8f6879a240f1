"""Fair shares as a mux's tables enforce them, in the kernel's program and here: one data path has both."""

from collections import Counter
from typing import Any

import pytest

from lbmux.daemons.kernel_shares import WINDOW_S, KernelShares
from lbmux.datapath.verdicts import Verdict
from tests.datapath.craft import ACK, SYN, Craft
from tests.datapath.harness import Frames
from tests.tables.test_mux_tables import Mux, backend, config, service

CAPACITY, TICKS_A_SECOND = 200, 954
ADDRESSES = {"192.0.2.1": bytes([192, 0, 2, 1]), "192.0.2.2": bytes([192, 0, 2, 2])}


class Flooded:
    """Two VIPs and time that passes."""

    def __init__(self, **more: Any) -> None:
        one, two = service("a", "192.0.2.1", backend(1)), service("b", "192.0.2.2", backend(2), **more)
        self.config = config(one, two, capacity_pps=CAPACITY)
        self.mux = Mux(self.config)
        self.shares = KernelShares(self.mux.control)
        self.shares.configure(self.config)
        self.now_s, self._client = 1.0, 0
        self.shares.read(self.now_s)

    def second(self, flags: int = SYN, **per_s: int) -> dict[str, int]:
        """Send packets to the services for a second; return how many were forwarded."""
        forwarded = Counter[str]()
        for _ in range(round(1 / WINDOW_S)):
            for name, rate in per_s.items():
                forwarded[name] += self.send(name, round(rate * WINDOW_S), flags)
            self.now_s += WINDOW_S
            self.shares.read(self.now_s)
        return dict(forwarded)

    def send(self, name: str, count: int, flags: int) -> int:
        to = ADDRESSES["192.0.2.1" if name == "a" else "192.0.2.2"]
        crafts = [Craft(source=(self._client + n).to_bytes(4), destination=to, flags=flags) for n in range(count)]
        self._client += count
        batch = Frames([craft.frame() for craft in crafts])
        self.mux.worker.forward(batch, round(self.now_s * TICKS_A_SECOND))
        return sum(verdict == Verdict.FORWARDED for verdict, *_ in batch.results())


def test_a_flooded_vip_gets_what_the_other_leaves_and_the_other_everything() -> None:
    flooded = Flooded()
    flooded.second(a=1000, b=20)
    rates = flooded.second(a=1000, b=20)
    assert rates["b"] == 20 and rates["a"] == pytest.approx(CAPACITY - 20, rel=0.15)
    assert [*map(str, flooded.shares.admitted)] == ["192.0.2.1"] and flooded.shares.dropped > 600


def test_two_flooded_vips_get_their_weights_shares() -> None:
    flooded = Flooded(share=3)
    for _ in range(3):
        rates = flooded.second(a=1000, b=1000)
    assert rates == {"a": pytest.approx(CAPACITY / 4, rel=0.2), "b": pytest.approx(CAPACITY * 3 / 4, rel=0.2)}


def test_nothing_is_held_before_and_after() -> None:
    flooded = Flooded()
    assert flooded.second(a=80, b=80) == {"a": 80, "b": 80} and not flooded.shares.admitted
    flooded.second(a=1000)
    assert flooded.shares.admitted
    flooded.second(a=20)
    assert flooded.second(a=180, flags=ACK) == {"a": 180} and not flooded.shares.admitted
    assert not flooded.mux.tables.services[flooded.mux.tables.active]["limited"].any()


def test_a_limit_of_the_service_stays_in_force() -> None:
    flooded = Flooded(packets_per_s=40)
    for per_s in (1000, 1000, 150, 150):
        rates = flooded.second(b=per_s)
    assert rates["b"] == pytest.approx(40, abs=4) and not flooded.shares.admitted


def test_packets_to_no_service_take_half_of_the_capacity_at_most() -> None:
    flooded, rate = Flooded(), round(CAPACITY / 8)
    for _ in range(20):
        elsewhere = Frames([Craft(destination_port=9).frame()] * 5 * CAPACITY)
        flooded.mux.worker.forward(elsewhere, round(flooded.now_s * TICKS_A_SECOND))
        assert {flooded.send(name, round(rate * WINDOW_S), SYN) for name in ("a", "b")} == {round(rate * WINDOW_S)}
        flooded.now_s += WINDOW_S
        flooded.shares.read(flooded.now_s)
    assert not flooded.shares.admitted


def test_what_goes_to_a_black_hole_takes_no_capacity() -> None:
    flooded = Flooded()
    flooded.second(a=1000)
    assert flooded.shares.admitted
    vip = next(iter(flooded.shares.admitted))
    flooded.shares.isolate({vip})
    assert not flooded.shares.admitted and not flooded.mux.tables.services[flooded.mux.tables.active]["limited"].any()
    tables, row = flooded.mux.tables, flooded.mux.control.vips[vip]
    tables.settings[0]["gated"], tables.vips[row]["until"] = 1, 1 << 20
    assert flooded.second(a=1000, b=CAPACITY - 20) == {"a": 0, "b": CAPACITY - 20} and not flooded.shares.admitted
