"""The pool put together from what muxes say."""

from dataclasses import replace
from pathlib import Path

from lbmux.tools.web.pool import look, names, picture
from tests.control.inside import client
from tests.tools.web.conftest import Served


def test_packets_a_second_are_what_came_between_two_looks(muxes: list[Served]) -> None:
    before = [look(mux.path.stem, mux.path) for mux in muxes]
    for port in range(3000, 3040):
        muxes[0].send(client(port))
    now = [replace(look(mux.path.stem, mux.path), at=old.at + 2) for mux, old in zip(muxes, before, strict=True)]
    seen = picture(now, before)
    assert [mux["packets_per_s"] for mux in seen["muxes"]] == [20.0, 0.0]
    assert [mux["flows"] for mux in seen["muxes"]] == [40, 0]
    assert sum(edge["packets_per_s"] for edge in seen["edges"] if edge["mux"] == "mux1") == 20.0
    web = next(service for service in seen["services"] if service["service"] == "web")
    assert (web["agree"], web["live_flows"]) == (True, 40)
    assert sum(backend["new_flows_per_s"] for backend in web["backends"]) == 20.0


def test_rates_are_0_at_first_and_when_a_counter_began_anew(muxes: list[Served]) -> None:
    fresh = look("mux1", muxes[0].path)
    muxes[0].send(client(3000))
    busy = look("mux1", muxes[0].path)
    for now, before in ((busy, []), (replace(fresh, at=busy.at + 1), [busy])):
        assert picture([now], before)["muxes"][0]["packets_per_s"] == 0.0


def test_a_mux_that_does_not_answer_is_named_and_the_others_are_shown(muxes: list[Served], tmp_path: Path) -> None:
    gone, there = picture([look("gone", tmp_path / "gone.sock"), look("mux1", muxes[0].path)], [])["muxes"]
    assert (gone["name"], gone["error"]) == ("gone", "nothing listens there: is the daemon running?")
    assert there["error"] == "" and there["driver"] == "packet"


def test_muxes_with_other_tables_disagree(muxes: list[Served]) -> None:
    one, other = (look(mux.path.stem, mux.path) for mux in muxes)
    other.services[0]["digest"] = "0" * 16
    assert [service["agree"] for service in picture([one, other], [])["services"]] == [False, True]


def test_sockets_of_one_name_are_called_by_their_paths() -> None:
    one, same, other = Path("/run/a/mux.sock"), Path("/run/b/mux.sock"), Path("/run/b/mux2.sock")
    assert names([one, same, other]) == {str(one): one, str(same): same, "mux2": other}


def test_a_backend_that_is_out_is_named_with_its_reason(muxes: list[Served]) -> None:
    down = {"service": "web", "backend": "h1", "state": "down", "reason": "refused", "since": None}
    muxes[0].health = [down, down | {"backend": "h2", "state": "up"}]
    seen = picture([look(mux.path.stem, mux.path) for mux in muxes], [])
    assert seen["out"] == [{"mux": "mux1", "service": "web", "backend": "h1", "state": "down", "reason": "refused"}]
