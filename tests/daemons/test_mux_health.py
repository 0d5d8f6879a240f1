"""Backends that die and come back, behind a mux and agents as processes."""

import socket
import time
from importlib.util import find_spec

import pytest

from lbmux.daemons.mux_health import FIRST_S
from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import Wire, running, started
from tests.daemons.slow_lab import VIPS, balanced
from tests.daemons.web_lab import (
    OUT_S,
    hosts,
    knocking,
    server,
    states,
    wait,
    wait_for_rows,
    wait_until,
    web,
    without_a_way,
)

pytestmark = pytest.mark.root


@pytest.mark.parametrize("options", [(), ("--driver", "xdp", "--detach-on-exit")], ids=["packet", "xdp"])
def test_dead_backend_gets_no_connection_and_comes_back(lab: Lab, options: tuple[str, ...]) -> None:
    with server(lab, 2), balanced(lab, options=options, services=[web(kind="tcp")]) as mux:
        with server(lab, 1):
            wait_until(mux, "h1", "up", 5)
            wait_for_rows(mux, "h1", "h2")
            assert hosts(lab) == {1, 2}
        wait_until(mux, "h1", "down", OUT_S)
        wait_for_rows(mux, "h2")
        assert hosts(lab) == {2}
        (line,) = (one for one in ask(mux.control, "health")["health"] if one["backend"] == "h1")
        assert "refused" in line["reason"].lower() and line["since"]
        with server(lab, 1):
            wait_until(mux, "h1", "up", 5)
            wait_for_rows(mux, "h1", "h2")
            assert hosts(lab) == {1, 2}


def tunnelled(wire: Wire) -> list[bytes]:
    """What came from a mux, of all that a host got until now."""
    return [frame for frame in wire.frames(1_000_000, 0.3) if frame[23] == socket.IPPROTO_IPIP]


def wait_for_tunnelled(wire: Wire) -> None:
    deadline = time.monotonic() + 10
    while not any(frame[23] == socket.IPPROTO_IPIP for frame in wire.frames(1, 0.1)):
        assert time.monotonic() < deadline


def test_a_starting_mux_sends_a_dead_backend_no_packets(lab: Lab) -> None:
    with server(lab, 2), Wire(lab, "host1") as first, Wire(lab, "host2") as second, knocking(lab):
        with balanced(lab, services=[web(kind="tcp", interval_s=1.0)]) as mux:
            assert states(mux) == {"h1": "down", "h2": "up"}
            wait_for_tunnelled(second)
        assert not tunnelled(first)


def test_a_mux_that_adopts_tables_does_not_bring_a_dead_backend_back(lab: Lab) -> None:
    """Its probes are slow, and the kernel forwards all the time."""
    configured, stays = [web(kind="tcp", interval_s=1.0)], ("--driver", "xdp")
    try:
        with server(lab, 2), knocking(lab):
            with balanced(lab, options=stays, services=configured) as mux:
                wait_for_rows(mux, "h2")
            with Wire(lab, "host1") as first, Wire(lab, "host2") as second:
                with running(lab, "mux1", "mux", *stays) as again:
                    assert ask(again.control, "runtime")["adopted"]
                    time.sleep(0.5)
                    assert states(again) == {"h1": "down", "h2": "up"}
                assert tunnelled(second) and not tunnelled(first)
            with server(lab, 1), running(lab, "mux1", "mux", *stays) as again:
                wait_until(again, "h1", "up", 5)
    finally:
        lab.inside("mux1", lambda: detach("eth0"))


def test_a_backend_that_never_answers_does_not_keep_a_mux_from_starting(lab: Lab) -> None:
    slow = web(kind="tcp", interval_s=30.0, timeout_s=30.0)
    with server(lab, 2), without_a_way(lab, 1):
        begun = time.monotonic()
        with balanced(lab, services=[slow]) as mux:
            assert time.monotonic() - begun > FIRST_S
            assert "1 backend without a health check result within 3 s" in mux.log
            assert states(mux) == {"h1": "down", "h2": "up"}
            wait_for_rows(mux, "h2")


def test_all_seem_dead_and_the_watermark_keeps_them(lab: Lab) -> None:
    with server(lab, 1), server(lab, 2), balanced(lab, services=[web(kind="tcp", port=9, watermark=0.5)]) as mux:
        wait_until(mux, "h1", "down", 5)
        wait_until(mux, "h2", "down", 5)
        assert hosts(lab) == {1, 2}
        assert all("kept" in line["reason"] for line in ask(mux.control, "health")["health"])


@pytest.mark.skipif(find_spec("exabgp") is None, reason="ExaBGP is not installed")
def test_the_only_mux_never_withdraws_a_vip_for_health(lab: Lab) -> None:
    dead = web(kind="tcp") | {"on_no_backend": "withdraw"}
    with balanced(lab, options=("--bgp-peer", "10.0.1.1"), services=[dead]) as mux:  # no server

        def is_last_resort() -> bool:
            bgp = ask(mux.control, "bgp")
            return bool(bgp["prefixes"] == bgp["last_resort"] == [f"{VIPS[4]}/32"])

        wait(is_last_resort, mux)
        with server(lab, 1):
            wait(lambda: ask(mux.control, "bgp")["last_resort"] == [], mux)
            assert ask(mux.control, "bgp")["prefixes"] == [f"{VIPS[4]}/32"]


def test_a_removed_option_names_its_replacement(lab: Lab) -> None:
    lab.write_config({"muxes": ["10.0.1.2"], "services": [web()]})
    with started(lab, "mux1", "mux", "--bgp-withdraw-without-backends") as mux:
        assert mux.process.wait(20) == 2
    assert "was renamed to `on_no_backend: withdraw`" in mux.log
