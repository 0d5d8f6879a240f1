"""`lbmux show bgp`, and the refusals of daemons that have no BGP or no health checks."""

import asyncio
import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from lbmux.api.control_server import Kind
from lbmux.api.protocol import to_plain
from lbmux.api.refusals import OF_A_MUX, OF_AN_AGENT, OF_AN_EDGE, refuse_requests
from lbmux.api.requests import GetBgp, GetFlows
from lbmux.bgp.announced import BgpState
from lbmux.bgp.bgp_settings import Neighbour, Route
from lbmux.cli.main import run
from lbmux.daemons.announcement import bgp_answer
from lbmux.errors import LbmuxError
from tests.api.answering import answering, said

NEIGHBOURS = [
    Neighbour("10.0.1.1", 64512, "established", 7265.4, 2, "up"),
    Neighbour("10.0.1.9", 4200000000, "active", reason="Received: Bad peer AS"),
]
ROUTES = [Route(ip_network("192.0.2.1/32")), Route(ip_network("2001:db8::1/128"), is_last_resort=True)]
STATE = bgp_answer(BgpState("bird", ROUTES, NEIGHBOURS))


def test_a_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(tmp_path / "mux.sock", {GetBgp: said(STATE)}):
        assert run(["show", "bgp", "--control", str(tmp_path / "mux.sock")]) == 0
    first, second, *table = (line.split() for line in capsys.readouterr().out.splitlines() if line.strip())
    assert " ".join(first) == "bird announces 192.0.2.1/32, 2001:db8::1/128"
    assert " ".join(second) == "with a longer AS path, because no backend is available: 2001:db8::1/128"
    assert table[0] == ["neighbour", "AS", "state", "up", "for", "prefixes", "BFD", "reason"]
    assert table[2] == ["10.0.1.1", "64512", "established", "2:01:05", "2", "up", "-"]
    assert table[3] == ["10.0.1.9", "4200000000", "active", "-", "0", "-", "Received:", "Bad", "peer", "AS"]


def test_an_empty_announcement_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(tmp_path / "mux.sock", {GetBgp: said(bgp_answer(BgpState("exabgp", [], [])))}):
        assert run(["show", "bgp", "--control", str(tmp_path / "mux.sock")]) == 0
    assert capsys.readouterr().out.startswith("exabgp announces nothing\n")


def test_json_is_the_daemons_answer_with_its_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(tmp_path / "mux.sock", {GetBgp: said(STATE)}):
        assert run(["show", "bgp", "-j", "--control", str(tmp_path / "mux.sock")]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer == to_plain(STATE) and answer["version"] == 1


@pytest.mark.parametrize(
    ("reasons", "what", "message"),
    [
        (OF_A_MUX, "bgp", "to announce its VIPs, start it with --bgp-peer ADDRESS"),
        (OF_AN_AGENT, "bgp", "use --control with the socket of a mux or an edge"),
        (OF_AN_EDGE, "services", "use `lbmux show health` or `lbmux show bgp`"),
        (OF_AN_EDGE, "flows", "use `lbmux show health` or `lbmux show bgp`"),
    ],
)
def test_a_daemon_without_bgp_says_what_to_do(
    reasons: dict[Kind, str], what: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(tmp_path / "lbmux.sock", refuse_requests(reasons)):
        assert run(["show", what, "--control", str(tmp_path / "lbmux.sock")]) == 1
    error = capsys.readouterr().err
    assert message in error and "unknown command" not in error


def test_a_refusal_takes_any_arguments() -> None:
    with pytest.raises(LbmuxError, match="has no tables"):
        asyncio.run(refuse_requests(OF_AN_EDGE)[GetFlows](GetFlows("tcp")))
