"""Hosts that stop answering through the tunnel, as muxes and agents as processes have it; services without `health`."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from lbmux.addresses import Address
from lbmux.daemons import daemon_host_probes
from lbmux.daemons.daemon_host_probes import HostProbes
from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, running
from tests.daemons.slow_lab import configuration, to_one_mux
from tests.daemons.web_lab import DRIVERS, hosts, server, states, wait, wait_for_rows, web

MODES = pytest.mark.parametrize("health", [{}, {"kind": "tcp"}], ids=["without health", "direct probes"])


@contextlib.contextmanager
def pool(lab: Lab, options: tuple[str, ...], **health: Any) -> Iterator[tuple[Daemon, Daemon]]:
    """A mux and the first host's agent."""
    lab.write_config({"muxes": ["10.0.1.2", "2001:db8:0:1::2"], "services": [web(**health)], "flows": {"limit": 4096}})
    to_one_mux(lab)
    with (
        server(lab, 1),
        server(lab, 2),
        running(lab, "host1", "agent") as first,
        running(lab, "host2", "agent"),
        running(lab, "mux1", "mux", *options) as mux,
    ):
        yield mux, first


@pytest.mark.root
@MODES
@DRIVERS
def test_a_dead_agent_does_not_become_a_black_hole(lab: Lab, kernel: bool, health: dict[str, str]) -> None:
    options = ("--driver", "xdp", "--detach-on-exit") if kernel else ()
    with pool(lab, options, **health) as (mux, first):
        wait_for_rows(mux, "h1", "h2")
        assert hosts(lab) == {1, 2}
        first.tell(signal.SIGKILL)
        first.process.wait(5)
        wait(lambda: states(mux)["h1"] == "down", mux)
        wait_for_rows(mux, "h2")
        assert hosts(lab) == {2}
        mux.wait_for("host 10.1.1.2 does not answer through the tunnel")
        with running(lab, "host1", "agent"):
            wait(lambda: states(mux) == {"h1": "up", "h2": "up"}, mux)
            wait_for_rows(mux, "h1", "h2")
            assert hosts(lab) == {1, 2}


@pytest.mark.root
def test_a_mux_that_starts_beside_a_dead_agent_does_not_use_its_host(lab: Lab) -> None:
    lab.write_config(configuration())
    to_one_mux(lab)
    with running(lab, "host2", "agent"), running(lab, "mux1", "mux") as mux:
        wait(lambda: states(mux) == {"h1": "down", "h2": "up"}, mux, 5)
        reasons = {one["reason"] for one in ask(mux.control, "health")["health"] if one["backend"] == "h2"}
        assert "no health check; host 10.1.2.2 answers through the tunnel" in reasons
        assert "does not answer" not in mux.log  # the agent might only be starting


@pytest.mark.root
def test_hosts_with_only_ipv6_or_udp_answer_too(lab: Lab) -> None:
    six = [one for one in configuration()["services"] if one["name"] == "udp6"]
    lab.write_config(configuration(services=six))
    to_one_mux(lab)
    with running(lab, "host1", "agent") as first, running(lab, "host2", "agent"), running(lab, "mux1", "mux") as mux:
        assert states(mux) == {"h1": "up", "h2": "up"}
        first.tell(signal.SIGKILL)
        first.process.wait(5)
        wait(lambda: states(mux) == {"h1": "down", "h2": "up"}, mux)


@pytest.mark.root
def test_where_no_host_answers_all_are_kept(lab: Lab) -> None:
    lab.write_config(configuration())
    to_one_mux(lab)
    with running(lab, "mux1", "mux") as mux:
        assert states(mux) == {"h1": "up", "h2": "up"}


@pytest.mark.root
def test_a_host_stays_when_its_agent_in_the_kernel_is_killed(lab: Lab) -> None:
    """Its programs keep forwarding, and answer the probes."""
    lab.write_config(configuration())
    to_one_mux(lab)
    kernel = ("--driver", "xdp")
    try:
        with (
            running(lab, "host1", "agent", *kernel) as first,
            running(lab, "host2", "agent"),
            running(lab, "mux1", "mux") as mux,
        ):
            wait_for_rows(mux, "h1", "h2")
            first.tell(signal.SIGKILL)
            first.process.wait(5)
            with pytest.raises(AssertionError):
                wait(lambda: states(mux)["h1"] == "down", mux, 5)
    finally:
        lab.inside("host1", lambda: detach("eth0"))


class LateProbes(HostProbes):
    """Probes of three hosts that note when each is asked and judged, on an event loop that is late now and then."""

    def __init__(self) -> None:
        super().__init__((), list)
        self._ways = {ip_address(f"10.1.{n}.2"): [("web", f"h{n}")] for n in range(3)}
        self.waited_s = list[float]()
        self._asked_at: dict[Address, float] = {}

    def _ask(self, host: Address) -> None:
        self._asked_at[host] = time.monotonic()
        if len(self.waited_s) == 5:
            time.sleep(3 * daemon_host_probes.ROUND_S)

    def _judge(self, host: Address) -> None:
        if host in self._asked_at:
            self.waited_s.append(time.monotonic() - self._asked_at[host])


def test_a_late_event_loop_leaves_each_host_a_whole_round_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_host_probes, "ROUND_S", 0.1)

    async def probing() -> LateProbes:
        probes = LateProbes()
        async with probes.running():
            while len(probes.waited_s) < 15:
                await asyncio.sleep(0.01)
        return probes

    assert min(asyncio.run(probing()).waited_s) > 0.09
