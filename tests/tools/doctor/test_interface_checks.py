"""The daemon's interface, up, down and gone."""

import os
from collections.abc import Iterator
from functools import partial

import pytest
from pyroute2 import IPRoute, netns

from lbmux.lab import namespaces
from lbmux.tools.doctor import interface_checks
from lbmux.tools.doctor.finding import Finding
from tests.tools.doctor.node_states import node


def link(name: str | None) -> list[Finding]:
    return [*interface_checks.link(node("mux", interface=name))]


def test_an_interface_that_is_up() -> None:
    assert link("lo") == [Finding("link", "ok", "lo is up")]


def test_an_interface_that_is_gone() -> None:
    (finding,) = link("nowhere0")
    assert (finding.state, finding.seen) == ("fault", "nowhere0 is gone") and "reopens it" in finding.hint


def test_without_a_daemon_interface_checks_report_nothing() -> None:
    assert link(None) == []


@pytest.mark.parametrize(
    ("driver", "came", "lost", "state", "said"),
    [
        ("packet", 0, 0, "ok", "receives no super-frames"),
        ("packet", 7, 0, "ok", "user space segments super-frames: 7 so far"),
        ("tun", 7, 0, "ok", "user space segments super-frames: 7 so far"),
        ("xdp", 7, 0, "warning", "7 super-frames bypassed the kernel program"),
        ("packet", 7, 3, "warning", "3 of 10 super-frames arrived faster than user space could read them"),
    ],
)
def test_super_frames_that_arrived(
    monkeypatch: pytest.MonkeyPatch, driver: str, came: int, lost: int, state: str, said: str
) -> None:
    monkeypatch.setattr(interface_checks, "features", lambda interface: {})
    counters = {"ring": {"super_frames": came, "super_frames_lost": lost}}
    state_of_node = node("mux", interface="lo", runtime={"driver": driver}, counters=counters)
    (finding,) = interface_checks.super_frames(state_of_node)
    assert finding.state == state
    assert said in finding.seen


@pytest.mark.parametrize(("driver", "state"), [("packet", "ok"), ("xdp", "warning")])
def test_an_interface_that_joins_frames(monkeypatch: pytest.MonkeyPatch, driver: str, state: str) -> None:
    monkeypatch.setattr(interface_checks, "features", lambda interface: {"gro": True})
    state_of_node = node("mux", interface="lo", runtime={"driver": driver}, counters=None)
    assert [finding.state for finding in interface_checks.super_frames(state_of_node)] == [state]


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"doctor{os.getpid()}"
    netns.create(name)
    yield name
    netns.remove(name)


@pytest.mark.root
def test_an_interface_that_is_down_at_this_end_or_the_other(namespace: str) -> None:
    def veth(**states: str) -> None:
        with IPRoute() as ip:
            if not ip.link_lookup(ifname="a0"):
                ip.link("add", ifname="a0", kind="veth", peer={"ifname": "a1"})
            for name, state in states.items():
                ip.link("set", index=ip.link_lookup(ifname=name)[0], state=state)

    for states, said in (({}, "down"), ({"a0": "up"}, "down"), ({"a1": "up"}, "up"), ({"a0": "down"}, "down")):
        namespaces.inside(namespace, partial(veth, **states))
        (finding,) = namespaces.inside(namespace, lambda: link("a0"))
        assert (finding.state, finding.seen) == ("ok" if said == "up" else "fault", f"a0 is {said}")
