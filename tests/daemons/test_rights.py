"""Daemons with the user, the capabilities and the filters of their units, and what one that lacks some says."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lbmux.codegen import cache
from lbmux.daemons.rights import NEEDS, missing
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP
from lbmux.linux.capabilities import Capability
from tests.api.asking import ask
from tests.daemons.at_hosts import serving, whoami
from tests.daemons.confined import USER, unit
from tests.daemons.running_daemons import READY, START_S, Daemon, configuration, service

ALL = (1 << 41) - 1
DRIVERS = {"user-space": ("packet", "tun"), "kernel": ("xdp", "xdp")}


@pytest.mark.parametrize("role", sorted(NEEDS))
def test_nothing_is_missing_with_all(role: str) -> None:
    assert missing(role, ALL) == []


def test_each_capability_that_is_missing_is_named_with_its_purpose() -> None:
    (line,) = missing("mux", ALL & ~(1 << Capability.NET_RAW))
    assert line == f"CAP_NET_RAW {NEEDS['mux'][Capability.NET_RAW]}"


def test_an_administrator_may_load_kernel_programs() -> None:
    assert missing("agent", 1 << Capability.SYS_ADMIN | 1 << Capability.NET_RAW | 1 << Capability.NET_ADMIN) == []


@pytest.mark.parametrize("role", sorted(NEEDS))
def test_units_grant_what_daemons_need(role: str) -> None:
    granted = unit(role)["AmbientCapabilities"].split()
    assert {str(one) for one in NEEDS[role]} <= set(granted)
    assert unit(role)["CapabilityBoundingSet"].split() == granted


@contextmanager
def confined(lab: Lab, node: str, program: str, driver: str, *options: str) -> Iterator[Daemon]:
    """A daemon as its unit runs it, with a directory of its own and the compiled code that root has made.

    It need not be ready yet.
    """
    own, compiled = lab.directory / f"{node}-{driver}", cache.directory()
    assert compiled is not None
    shutil.copytree(compiled, own / "cache" / compiled.name)
    for path in (own, *own.rglob("*")):
        shutil.chown(path, USER)
        path.chmod(0o700 if path.is_dir() else 0o600)
    prefix = (sys.executable, "-m", "tests.daemons.confined", program, str(own), "env", f"LBMUX_CACHE={own}/cache")
    control = own / "daemon.sock"
    words = ("edge", "--balance") if program == "balancing-edge" else (program,)
    daemon = Daemon(lab, node, *words, *options, "--driver", driver, "--control", str(control), prefix=prefix)
    daemon.control = control
    try:
        yield daemon
        assert daemon.end() == 0, daemon.log
    finally:
        daemon.process.kill()
        daemon.process.wait()


@pytest.mark.root
@pytest.mark.parametrize("drivers", DRIVERS.values(), ids=DRIVERS)
def test_confined_daemons_forward_a_request(lab: Lab, drivers: tuple[str, str]) -> None:
    lab.write_config(configuration(service("web", 80, [{"dip": "10.1.1.2", "port": 8080}])))
    with (
        serving(lab),
        confined(lab, "mux1", "mux", drivers[0]) as mux,
        confined(lab, "host1", "agent", drivers[1]) as agent,
    ):
        mux.wait_for(READY["mux"], START_S)
        agent.wait_for(READY["agent"], START_S)
        assert whoami(lab, VIP, 80) == "h1"
        for daemon, driver in ((mux, drivers[0]), (agent, drivers[1])):
            assert ask(daemon.control, "runtime")["driver"] == driver
            assert " lacks CAP_" not in daemon.log
            assert Path(f"/proc/{daemon.process.pid}").owner() == USER


@pytest.mark.root
def test_a_daemon_says_what_it_lacks(lab: Lab) -> None:
    prefix = ("setpriv", "--bounding-set=-all,+net_raw,+net_admin,+dac_override", "--inh-caps=-all")
    mux = Daemon(lab, "mux1", "mux", "--driver", "auto", prefix=prefix)
    try:
        mux.wait_for(READY["mux"], START_S)
        assert f"lacks CAP_BPF {NEEDS['mux'][Capability.BPF]}" in mux.log
        assert "XDP is not available on eth0; falling back to driver packet" in mux.log
    finally:
        mux.process.kill()
        mux.process.wait()
