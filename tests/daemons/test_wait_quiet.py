"""A stopping mux forwards while packets arrive, and a mux withdrawn by command forwards for ever."""

import asyncio
import signal
import time
from importlib.util import find_spec
from itertools import count

import pytest

from lbmux.daemons.wait_quiet import QUIET_S, wait_quiet
from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, running, service
from tests.daemons.test_drivers import verdicts
from tests.daemons.web_lab import knocking, tell

BACKENDS = [{"name": "h1", "dip": "10.1.1.2"}]
CONFIG = {"muxes": ["10.0.1.2"], "flows": {"limit": 4096}, "services": [service("web", 80, BACKENDS)]}
PEER = ("--bgp-peer", "10.0.1.1")
speaks = pytest.mark.skipif(find_spec("exabgp") is None, reason="ExaBGP is not installed")


def took(forwarded: object, most_s: float, at_once: bool = False) -> float:
    async def run() -> float:
        event = asyncio.Event()
        if at_once:
            event.set()
        begun = time.monotonic()
        await wait_quiet(forwarded, most_s, event)  # type: ignore[arg-type]
        return time.monotonic() - begun

    return asyncio.run(run())


def test_the_wait_ends_after_the_quiet_time() -> None:
    numbers = iter([*range(10), *[10] * 1000])
    assert QUIET_S + 0.4 <= took(lambda: next(numbers), 30) < QUIET_S + 2


def test_packets_that_never_end_are_bounded() -> None:
    numbers = count()
    assert QUIET_S < took(lambda: next(numbers), 2 * QUIET_S) < 4 * QUIET_S


def test_a_shorter_bound_than_the_quiet_time_holds() -> None:
    assert took(lambda: 0, 0.1) < QUIET_S


def test_the_wait_ends_with_the_second_signal() -> None:
    numbers = count()
    assert took(lambda: next(numbers), 30, at_once=True) < QUIET_S


def still_forwards(mux: Daemon) -> None:
    """More packets are forwarded from now on."""
    before, deadline = verdicts(mux)["forwarded"], time.monotonic() + 10
    while verdicts(mux)["forwarded"] == before:
        assert time.monotonic() < deadline, mux.log
        time.sleep(0.05)


@pytest.mark.root
@speaks
def test_a_mux_stops_when_no_packet_arrives(lab: Lab) -> None:
    """The router has a static route to it, and keeps forwarding as long as the client sends."""
    lab.write_config(CONFIG)
    with running(lab, "mux1", "mux", *PEER) as mux:
        with knocking(lab):
            mux.tell(signal.SIGTERM)
            mux.wait_for("0 prefixes announced, 1 withdrawn")
            time.sleep(2 * QUIET_S)
            still_forwards(mux)
        assert mux.process.wait(5) == 0


@pytest.mark.root
@speaks
@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)], ids=["twice", "interrupt"])
def test_a_second_signal_ends_the_wait_at_once(lab: Lab, signals: tuple[signal.Signals, ...]) -> None:
    lab.write_config(CONFIG)
    with running(lab, "mux1", "mux", *PEER) as mux, knocking(lab):
        for number in signals:
            mux.tell(number)
            time.sleep(0.1)
        assert mux.process.wait(5) == 0


@pytest.mark.root
@speaks
def test_a_mux_withdrawn_by_command_keeps_forwarding_and_comes_back(lab: Lab) -> None:
    lab.write_config(CONFIG)
    with running(lab, "mux1", "mux", *PEER) as mux, knocking(lab):
        mux.wait_for("1 prefix announced")
        done = tell(mux, "withdraw")
        assert (done.returncode, done.stdout) == (0, "announced: nothing\n"), done.stderr
        assert mux.reload().returncode == 0
        bgp = ask(mux.control, "bgp")
        assert (bgp["prefixes"], bgp["held"]) == ([], True)  # a reload does not bring it back
        still_forwards(mux)
        done = tell(mux, "announce")
        assert (done.returncode, done.stdout) == (0, "announced: 192.0.2.1/32\n"), done.stderr
