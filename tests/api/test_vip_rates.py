"""Rates by VIP, and the verb that shows them."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lbmux.api.answers import BackendLine, BlackHole, Overload, ServiceLine
from lbmux.api.counter_rates import CounterSnapshot
from lbmux.api.vip_rates import top_talkers
from lbmux.cli import main
from tests.linux.inside import client
from tests.tools.served import Served


def line(service: str, vip: str) -> ServiceLine:
    return ServiceLine(service, vip, "tcp", 80, "80", 0, None, "all", 0, {}, 1, 1, 0, None, None, None)


def backend(service: str, packets: int | None) -> BackendLine:
    octets, flows = (None, None) if packets is None else (packets * 100, packets // 10)
    return BackendLine(service, "h1", "10.1.0.1", 80, "10.1.0.1", 1, "up", True, packets, octets, flows, 0, 0, 0, 0)


LINES = [line("web", "192.0.2.1"), line("secure", "192.0.2.1"), line("dns", "192.0.2.2")]


def snapshot(at: float, **packets: int | None) -> CounterSnapshot:
    return CounterSnapshot(at, [backend(service, number) for service, number in packets.items()], ())


def test_services_of_a_vip_are_added_and_the_busiest_vip_comes_first() -> None:
    talkers = top_talkers(LINES, snapshot(10, web=0, secure=0, dns=100), snapshot(12, web=200, secure=100, dns=800))
    assert talkers.seconds == 2
    assert [(one.vip, one.services, one.packets, one.bytes, one.share) for one in talkers.vips] == [
        ("192.0.2.2", ["dns"], 350.0, 35000.0, 0.7),
        ("192.0.2.1", ["web", "secure"], 150.0, 15000.0, 0.3),
    ]


def test_a_vip_that_is_new_or_at_an_agent_has_no_rates() -> None:
    talkers = top_talkers(LINES, snapshot(0, web=None), snapshot(1, web=None, dns=5))
    assert {(one.packets, one.bytes, one.new_flows, one.share) for one in talkers.vips} == {(None, None, None, None)}


def test_an_idle_mux_has_shares_of_zero() -> None:
    talkers = top_talkers(LINES[2:], snapshot(0, dns=5), snapshot(1, dns=5))
    assert [one.share for one in talkers.vips] == [0.0]


def test_a_black_hole_comes_first_with_the_time_that_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mux = Served(tmp_path / "mux.sock")
    holes = {"192.0.2.2": BlackHole(1.0, 9.0, 0, 55)}
    monkeypatch.setattr(time, "sleep", lambda seconds: mux.send(client()))
    monkeypatch.setattr(mux.status, "overload", lambda: Overload(None, "", 1, black_holes=holes))
    try:
        table = said(capsys, "--limit", "1", "--control", str(mux.path))
    finally:
        mux.close()
    assert "192.0.2.2" in table and "9 s left, 55 dropped" in table and "192.0.2.1" not in table


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main.run(["show", "top-talkers", *arguments]) == 0
    return capsys.readouterr().out


def test_the_verb_measures_a_running_mux(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mux = Served(tmp_path / "mux.sock")
    monkeypatch.setattr(time, "sleep", lambda seconds: mux.send(*(client(port) for port in range(100))))
    where = ("--control", str(mux.path))
    try:
        answer: dict[str, Any] = json.loads(said(capsys, "-j", *where))
        table = said(capsys, "--limit", "1", *where)
    finally:
        mux.close()
    first, *_ = answer["vips"]
    assert (answer["version"], first["vip"], first["share"]) == (1, "192.0.2.1", 1.0)
    assert first["packets"] * answer["seconds"] == pytest.approx(100)
    assert all(text in table for text in ("VIP", "new flows/s", "192.0.2.1", "100%")) and "192.0.2.2" not in table
