"""The pool put together from what muxes say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lbmux.api.requests import GetBgp
from lbmux.bgp.bgp_settings import Neighbour
from lbmux.tools.web.mux_status import MuxStatus, poll
from lbmux.tools.web.pool_status import document
from lbmux.tools.web.web_routers import ROUTER
from tests.linux.inside import client, dns
from tests.tools.web.conftest import UP, Served


def statuses(muxes: list[Served]) -> list[MuxStatus]:
    return [poll(mux.path.stem, mux.path) for mux in muxes]


def of_web(seen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    web = next(service for service in seen["services"] if service["service"] == "web")
    return {backend["backend"]: backend for backend in web["backends"]}


def test_packets_per_second_are_the_difference_of_two_readings(muxes: list[Served]) -> None:
    before = statuses(muxes)
    for port in range(3000, 3040):
        muxes[0].send(client(port))
    now = [replace(one, at=old.at + 2) for one, old in zip(statuses(muxes), before, strict=True)]
    seen = document(now, before)
    assert [mux["packets_per_s"] for mux in seen["muxes"]] == [20.0, 0.0]
    assert [mux["flows"] for mux in seen["muxes"]] == [40, 0]
    assert sum(edge["packets_per_s"] for edge in seen["edges"] if edge["mux"] == "mux1") == 20.0
    web = next(service for service in seen["services"] if service["service"] == "web")
    assert web["live_flows"] == 40
    assert sum(backend["new_flows_per_s"] for backend in web["backends"]) == 20.0
    assert [(vip["vip"], vip["packets_per_s"]) for vip in seen["vips"]] == [("192.0.2.1", 20.0), ("192.0.2.2", 0.0)]


def test_rates_are_unknown_at_first_and_0_after_a_counter_restarts(muxes: list[Served]) -> None:
    fresh = poll("mux1", muxes[0].path)
    muxes[0].send(client(3000))
    busy = poll("mux1", muxes[0].path)
    for now, before, rate in ((busy, [], None), (replace(fresh, at=busy.at + 1), [busy], 0.0)):
        assert document([now], before)["muxes"][0]["packets_per_s"] == rate


def test_a_mux_that_does_not_answer_is_named_and_the_others_are_shown(muxes: list[Served], tmp_path: Path) -> None:
    """What it forwards is unknown, not 0: the page marks each sum."""
    before = [poll("gone", tmp_path / "gone.sock"), poll("mux1", muxes[0].path)]
    seen = document([replace(one, at=one.at + 1) for one in before], before)
    gone, there = seen["muxes"]
    assert (gone["name"], gone["error"]) == ("gone", "nothing listens there; is the daemon running?")
    assert (gone["packets_per_s"], there["packets_per_s"], seen["unknown"]) == (None, 0.0, ["gone"])
    assert there["error"] == "" and there["driver"] == "packet"


def test_a_mux_that_is_back_is_unknown_for_one_reading(muxes: list[Served], tmp_path: Path) -> None:
    lost = poll("mux1", tmp_path / "gone.sock")
    back = replace(poll("mux1", muxes[0].path), place=lost.place)
    seen = document([back], [lost])
    assert (seen["unknown"], seen["muxes"][0]["packets_per_s"]) == (["mux1"], None)
    assert document([replace(back, at=back.at + 1)], [back])["unknown"] == []


def test_muxes_with_other_tables_disagree(muxes: list[Served]) -> None:
    assert [service["agree"] for service in document(statuses(muxes), [])["services"]] == [False, True]  # one has h4
    muxes[1].override(None, "h4")
    muxes[1].in_force()
    assert [service["agree"] for service in document(statuses(muxes), [])["services"]] == [True, True]


def test_a_backend_that_is_out_is_among_the_service_s_with_state_reason_and_weight(muxes: list[Served]) -> None:
    seen = document(statuses(muxes), [])
    web = of_web(seen)
    assert list(web) == ["h1", "h2", "h3", "h4"]
    assert web["h3"]["health"] == [{"state": "down", "reason": "connection refused", "muxes": ["mux1", "mux2"]}]
    assert (web["h3"]["weight"], web["h3"]["host"], web["h3"]["packets_per_s"]) == (3, "10.1.3.2", 0.0)
    assert web["h4"]["health"] == [
        {"state": "up", "reason": "connected", "muxes": ["mux1"]},
        {"state": "disabled", "reason": "by command", "muxes": ["mux2"]},
    ]
    out = {(line["mux"], line["backend"], line["state"], line["reason"]) for line in seen["out"]}
    assert out == {("mux1", "h3", "down", "connection refused"), ("mux2", "h3", "down", "connection refused"),
                   ("mux2", "h4", "disabled", "by command")}  # fmt: skip


def test_an_edge_whose_backends_are_all_out_serves_none(muxes: list[Served]) -> None:
    edges = {(edge["mux"], edge["host"]): edge["serves"] for edge in document(statuses(muxes), [])["edges"]}
    assert {at for at, serves in edges.items() if not serves} == {
        ("mux1", "10.1.3.2"), ("mux2", "10.1.3.2"), ("mux2", "10.1.4.2")
    }  # fmt: skip
    assert len(edges) == 8


def test_routers_are_the_muxes_bgp_neighbours(muxes: list[Served]) -> None:
    seen = document(statuses(muxes), [])
    assert seen["routers"] == ["10.0.1.1", "10.0.2.1"]
    assert [tuple(one.values())[:3] for one in seen["sessions"]] == [
        ("10.0.1.1", "mux1", True), ("10.0.1.1", "mux2", True), ("10.0.2.1", "mux2", False)
    ]  # fmt: skip
    assert {vip["vip"]: (vip["services"], vip["routers"]) for vip in seen["vips"]} == {
        "192.0.2.1": (["web"], ["10.0.1.1"]), "192.0.2.2": (["dns"], ["10.0.1.1"])
    }  # fmt: skip


def test_a_router_that_no_mux_knows_is_a_plain_one(muxes: list[Served]) -> None:
    muxes[1].handlers.pop(GetBgp)
    seen = document(statuses(muxes), [])
    assert seen["routers"] == ["10.0.1.1", ROUTER]
    assert [tuple(one.values())[:3] for one in seen["sessions"]] == [
        ("10.0.1.1", "mux1", True), (ROUTER, "mux2", True),
    ]  # fmt: skip
    assert seen["vips"][0]["routers"] == ["10.0.1.1", ROUTER]


def test_a_vip_without_an_announcement_has_no_router(muxes: list[Served]) -> None:
    for mux in muxes:
        mux.neighbours = (replace(UP, state="idle"),)
    seen = document(statuses(muxes), [])
    assert seen["routers"] == ["10.0.1.1"] and [vip["routers"] for vip in seen["vips"]] == [[], []]


def test_a_mux_that_does_not_answer_may_have_had_any_router(muxes: list[Served], tmp_path: Path) -> None:
    gone = poll("gone", tmp_path / "gone.sock")
    (_, lost) = document([poll("mux1", muxes[0].path), gone], [])["sessions"]
    assert (lost["router"], lost["mux"], lost["up"]) == ("10.0.1.1", "gone", False)
    (session,) = document([gone], [])["sessions"]
    assert (session["router"], session["mux"], session["up"]) == (ROUTER, "gone", False)


def test_vips_have_the_packets_of_their_services(muxes: list[Served]) -> None:
    before = statuses(muxes)
    for mux in muxes:
        mux.send(dns(1), dns(2), client(9))
    now = [replace(one, at=old.at + 1) for one, old in zip(statuses(muxes), before, strict=True)]
    assert [vip["packets_per_s"] for vip in document(now, before)["vips"]] == [2.0, 4.0]


def test_neighbours_of_every_state_but_established_are_not_up(muxes: list[Served]) -> None:
    muxes[0].neighbours = (Neighbour("10.0.1.1", 64512, "down", reason="Received: Bad peer AS"),)
    (session,) = document(statuses(muxes[:1]), [])["sessions"]
    assert (session["up"], session["state"], session["reason"]) == (False, "down", "Received: Bad peer AS")
