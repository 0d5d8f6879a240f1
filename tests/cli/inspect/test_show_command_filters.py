"""`lbmux show services|backends` with filters: fields by pattern, in tables, JSON and IPVS's form."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.cli.main import run
from lbmux.daemons.drivers import Driver
from lbmux.daemons.status_handlers import StatusHandlers
from tests.api.answering import answering
from tests.api.lines import service_line
from tests.linux.inside import CONFIG, Inside


@pytest.fixture
def control(tmp_path: Path) -> Iterator[str]:
    inside, path = Inside(CONFIG), tmp_path / "mux.sock"
    driver = Driver("mux", "eth0", inside.tables, 0, "packet")
    with answering(path, StatusHandlers(lambda: inside.snapshot, driver, path, {}).handlers()):
        yield str(path)


def names(capsys: pytest.CaptureFixture[str], control: str, what: str, *filters: str) -> list[str]:
    assert run(["show", what, "-j", "--control", control, *filters]) == 0
    lines = json.loads(capsys.readouterr().out)[what]
    return ["/".join(line[key] for key in ("service", "backend") if key in line) for line in lines]


def test_services_by_name_vip_and_protocol(control: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert names(capsys, control, "services") == ["web", "dns"]
    assert names(capsys, control, "services", "--service", "w*") == ["web"]
    assert names(capsys, control, "services", "--vip", "192.0.2.2") == ["dns"]
    assert names(capsys, control, "services", "--protocol", "tcp", "--service", "dns") == []


def test_backends_by_service_name_dip_and_state(control: str, capsys: pytest.CaptureFixture[str]) -> None:
    every = names(capsys, control, "backends")
    assert names(capsys, control, "backends", "--service", "dns") == [one for one in every if one.startswith("dns/")]
    assert names(capsys, control, "backends", "--backend", "h2") == [one for one in every if one.endswith("/h2")]
    by_dip = names(capsys, control, "backends", "--dip", "10.1.1.?")
    assert by_dip and set(by_dip) < set(every)
    assert names(capsys, control, "backends", "--state", "up") == every
    assert names(capsys, control, "backends", "--state", "draining") == []


def test_tables_have_the_same_lines(control: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "services", "--control", control, "--service", "web"]) == 0
    output = capsys.readouterr().out
    assert "web" in output and "dns" not in output


def test_ipv6_in_any_form() -> None:
    from lbmux.cli.inspect.node_answers import matching

    lines = [service_line(vip="2001:db8::80"), service_line(vip="2001:db8::81")]
    assert matching(lines, {"vip": "2001:DB8:0::80"}) == lines[:1]
    assert matching(lines, {"vip": "2001:db8::*", "service": None}) == lines
