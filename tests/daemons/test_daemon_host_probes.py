"""Hosts that stop answering through the tunnel, as muxes and agents as processes have it; services without `health`."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, running
from tests.daemons.slow_lab import configuration, to_one_mux
from tests.daemons.web_lab import DRIVERS, hosts, server, states, wait, wait_for_rows, web

pytestmark = pytest.mark.root
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


def test_a_mux_that_starts_beside_a_dead_agent_does_not_use_its_host(lab: Lab) -> None:
    lab.write_config(configuration())
    to_one_mux(lab)
    with running(lab, "host2", "agent"), running(lab, "mux1", "mux") as mux:
        wait(lambda: states(mux) == {"h1": "down", "h2": "up"}, mux, 5)
        found = {one["reason"] for one in ask(mux.control, "health")["health"] if one["backend"] == "h2"}
        assert "no health check; host 10.1.2.2 answers through the tunnel" in found
        assert "does not answer" not in mux.log  # the agent might only be starting


def test_hosts_with_only_ipv6_or_udp_answer_too(lab: Lab) -> None:
    six = [one for one in configuration()["services"] if one["name"] == "udp6"]
    lab.write_config(configuration(services=six))
    to_one_mux(lab)
    with running(lab, "host1", "agent") as first, running(lab, "host2", "agent"), running(lab, "mux1", "mux") as mux:
        assert states(mux) == {"h1": "up", "h2": "up"}
        first.tell(signal.SIGKILL)
        first.process.wait(5)
        wait(lambda: states(mux) == {"h1": "down", "h2": "up"}, mux)


def test_where_no_host_answers_all_are_kept(lab: Lab) -> None:
    lab.write_config(configuration())
    to_one_mux(lab)
    with running(lab, "mux1", "mux") as mux:
        assert states(mux) == {"h1": "up", "h2": "up"}


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
