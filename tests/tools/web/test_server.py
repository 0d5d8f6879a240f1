"""The page's server: what it answers, and to whom."""

import asyncio
import base64
import json
from typing import Any

import numpy as np
import pytest
import yaml
from aiohttp.test_utils import TestClient

from lbmux.control.maglev import build
from lbmux.lab.board import report
from lbmux.lab.board.experiment import Load
from lbmux.tools.web.guard import is_local
from lbmux.tools.web.server import FILES, Site
from tests.control.inside import CONFIG
from tests.tools.web.conftest import FAILURES, OUTCOMES, visit

Client = TestClient[Any, Any]
ELSEWHERE = {"Host": "attacker.example"}


def unpacked(text: str) -> "np.ndarray[Any, Any]":
    return np.frombuffer(base64.b64decode(text), "<u2")


def test_every_file_of_the_page_is_served_and_asks_for_nothing_elsewhere(site: Site) -> None:
    async def look(client: Client) -> None:
        for path in FILES:
            answer = await client.get(path)
            text = await answer.text()
            assert answer.status == 200 and text
            assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]

    visit(site, look)


def test_without_a_token_only_this_machine_s_names_are_answered(site: Site) -> None:
    async def look(client: Client) -> None:
        assert (await client.get("/")).status == 200
        assert (await client.get("/", headers=ELSEWHERE)).status == 403
        assert (await client.get("/events", headers=ELSEWHERE)).status == 403

    visit(site, look)


def test_with_a_token_nothing_is_shown_without_it_and_a_link_sets_a_cookie(site: Site) -> None:
    async def look(client: Client) -> None:
        for path in ("/", "/events", "/api/table?service=web", "/?token=wrong"):
            assert (await client.get(path)).status == 401
        assert (await client.get("/", headers={"Authorization": "Bearer secret"})).status == 200
        opened = await client.get("/?token=secret", allow_redirects=False)
        assert (opened.status, opened.headers["Location"]) == (303, "/")
        assert "HttpOnly" in opened.headers["Set-Cookie"] and "SameSite=Strict" in opened.headers["Set-Cookie"]

    visit(site, look, "secret")


def test_what_is_this_machine_alone() -> None:
    assert all(map(is_local, ("127.0.0.1", "::1", "[::1]", "localhost")))
    assert not any(map(is_local, ("0.0.0.0", "10.0.0.1", "localhost.example", "")))


def test_events_bring_the_pool_again_and_again(site: Site) -> None:
    async def look(client: Client) -> None:
        async with client.get("/events") as stream:
            assert stream.headers["Content-Type"] == "text/event-stream"
            for _ in range(2):
                line = await stream.content.readuntil(b"\n\n")
                assert [mux["name"] for mux in json.loads(line.removeprefix(b"data: "))["muxes"]] == ["mux1", "mux2"]

    visit(site, look)


def test_a_table_is_the_mux_s_own(site: Site, muxes: list[Any]) -> None:
    from lbmux.control.show import slot_table

    moment = muxes[0].moment
    service = next(one for one in moment.services if one.name == "web")
    rows = {row: backend.name for row, (owner, backend) in moment.owners.items() if owner.name == "web"}
    want = [rows[row] for row in slot_table(moment, service).tolist()]

    async def look(client: Client) -> None:
        answer = await (await client.get("/api/table?service=web")).json()
        assert [answer["names"][at] for at in unpacked(answer["slots"])] == want
        assert (await client.get("/api/table?service=nobody")).status == 400

    visit(site, look)


def test_a_proposal_tells_how_much_it_would_move(site: Site) -> None:
    proposed = json.loads(json.dumps(CONFIG))
    backends = proposed["services"][0]["backends"]
    backends[0]["weight"] = 0

    async def look(client: Client) -> None:
        answer = await (await client.post("/api/proposal", data=yaml.safe_dump(proposed))).json()
        move = next(one for one in answer["services"] if one["service"] == "web")
        changed, slots = unpacked(move["changed"]), unpacked(move["slots"])
        assert move["moved"] == pytest.approx(changed.mean(), abs=1e-5) and 0 < move["moved"] < 1
        gone = move["names"].index(backends[0]["name"])
        assert move["shares"][gone][1] == 0 < move["shares"][gone][0]
        assert gone not in slots
        other = next(one for one in answer["services"] if one["service"] != "web")
        assert other["moved"] == 0
        kept = {backend["name"]: backend.get("weight", 1) for backend in backends}
        names = sorted(kept)
        table = build(names, [kept[name] for name in names], len(slots))
        assert [move["names"][at] for at in slots] == [names[at] for at in table]

    visit(site, look)


def test_a_proposal_that_is_not_usable_says_line_and_field(site: Site) -> None:
    async def look(client: Client) -> None:
        answer = await client.post("/api/proposal", data="services:\n- name: web\n  vip: nonsense\n")
        assert answer.status == 400
        assert "proposal:3: services[0].vip: " in (await answer.json())["error"]

    visit(site, look)


def test_a_packet_is_explained_by_the_mux_that_was_asked_for(site: Site) -> None:
    async def look(client: Client) -> None:
        asked = {"packet": "198.51.100.7:1 > 192.0.2.1:80/tcp", "mux": "mux2"}
        answer = await (await client.get("/api/explain", params=asked)).json()
        assert answer["verdict"] == "forwarded"
        refused = await client.get("/api/explain", params={"packet": "nonsense"})
        assert refused.status == 400 and "should be SRC:PORT" in (await refused.json())["error"]

    visit(site, look)


def test_the_scoreboard_is_the_file_s_or_nothing(site: Site) -> None:
    async def look(client: Client) -> None:
        answer = await (await client.get("/api/scoreboard")).json()
        assert answer["result"] == json.loads(json.dumps(report.document(OUTCOMES, FAILURES, Load(), 123.4)))

    async def nothing(client: Client) -> None:
        assert (await (await client.get("/api/scoreboard")).json())["result"] is None

    visit(site, look)
    visit(Site(site.controls), nothing)


def test_events_say_when_the_scoreboard_is_another(site: Site) -> None:
    assert site.scoreboard is not None
    board = site.scoreboard

    async def stamps(client: Client) -> None:
        async with client.get("/events") as stream:

            async def stamp() -> Any:
                line = await stream.content.readuntil(b"\n\n")
                return json.loads(line.removeprefix(b"data: "))["scoreboard"]

            first = await stamp()
            assert first and await stamp() == first
            board.write_text(json.dumps(report.document(OUTCOMES[:1], [], Load(), 1.0)))
            async with asyncio.timeout(5):
                while await stamp() == first:
                    pass
            board.unlink()
            async with asyncio.timeout(5):
                while await stamp() is not None:
                    pass

    visit(site, stamps)
