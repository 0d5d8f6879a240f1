"""The page's server: its answers, and the clients that get them."""

import asyncio
import base64
import json
import threading
from typing import Any

import numpy as np
import pytest
import yaml
from aiohttp.test_utils import TestClient

from lbmux.lab.scoreboard import scoreboard_report
from lbmux.lab.scoreboard.experiment import Load
from lbmux.tables.maglev import build
from lbmux.tools.web import dry_runs
from lbmux.tools.web.pool_site import FILES, MOST_PROPOSED_BYTES
from lbmux.tools.web.table_view import Weights
from lbmux.tools.web.web_access import is_local
from lbmux.tools.web.web_server import Site
from tests.linux.inside import CONFIG
from tests.tools.web.conftest import FAILURES, OUTCOMES, visit

Client = TestClient[Any, Any]
ELSEWHERE = {"Host": "attacker.example"}


def unpacked(text: str) -> "np.ndarray[Any, Any]":
    return np.frombuffer(base64.b64decode(text), "<u2")


def test_every_file_of_the_page_is_served_and_needs_no_other_host(site: Site) -> None:
    async def poll(client: Client) -> None:
        for path in FILES:
            answer = await client.get(path)
            text = await answer.text()
            assert answer.status == 200 and text
            assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]

    visit(site, poll)


def test_without_a_token_only_this_machine_s_names_are_answered(site: Site) -> None:
    async def poll(client: Client) -> None:
        assert (await client.get("/")).status == 200
        assert (await client.get("/", headers=ELSEWHERE)).status == 403
        assert (await client.get("/events", headers=ELSEWHERE)).status == 403

    visit(site, poll)


def test_with_a_token_nothing_is_shown_without_it_and_a_link_sets_a_cookie(site: Site) -> None:
    async def poll(client: Client) -> None:
        for path in ("/", "/events", "/api/table?service=web", "/?token=wrong"):
            assert (await client.get(path)).status == 401
        assert (await client.get("/", headers={"Authorization": "Bearer secret"})).status == 200
        opened = await client.get("/?token=secret", allow_redirects=False)
        assert (opened.status, opened.headers["Location"]) == (303, "/")
        assert "HttpOnly" in opened.headers["Set-Cookie"] and "SameSite=Strict" in opened.headers["Set-Cookie"]

    visit(site, poll, "secret")


@pytest.mark.parametrize("token", ["\xfcber", "\udcff\udcfe", "\u2603"], ids=["latin", "not utf-8", "snowman"])
def test_tokens_that_are_not_ascii_are_wrong_ones(site: Site, token: str) -> None:
    async def poll(client: Client) -> None:
        raw = token.encode("utf-8", "surrogateescape")
        assert (await client.get("/", headers={"Authorization": f"Bearer {token}"})).status == 401
        assert await raw_status(client, b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + raw) == 401
        assert await raw_status(client, b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: lbmux-token=" + raw) == 401
        escaped = "".join(f"%{byte:02x}" for byte in raw).encode()
        assert await raw_status(client, b"GET /?token=" + escaped + b" HTTP/1.1\r\nHost: localhost") == 401

    visit(site, poll, "secret")


async def raw_status(client: Client, head: bytes) -> int:
    """The status of the answer to a request as these bytes have it."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(head + b"\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


@pytest.mark.parametrize("host", ["exam[ple", "a b", ""])
def test_an_invalid_host_is_refused(site: Site, host: str) -> None:
    async def poll(client: Client) -> None:
        assert await raw_status(client, f"GET / HTTP/1.1\r\nHost: {host}".encode()) in (400, 403)

    visit(site, poll)


FROM_ELSEWHERE = [
    {"Origin": "http://attacker.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
]  # fmt: skip


@pytest.mark.parametrize("token", [None, "secret"])
@pytest.mark.parametrize("headers", FROM_ELSEWHERE, ids=lambda headers: " ".join(headers.values()))
def test_requests_of_another_origin_s_page_are_refused(site: Site, headers: dict[str, str], token: str | None) -> None:
    sent = headers | ({"Authorization": f"Bearer {token}"} if token else {})

    async def poll(client: Client) -> None:
        assert (await client.post("/api/proposal", data="services: []", headers=sent)).status == 403
        for path in ("/api/table?service=web", "/api/explain?packet=x", "/api/scoreboard", "/events", "/app.js"):
            assert (await client.get(path, headers=sent)).status == 403
        assert (await client.get("/", headers=sent)).status == 200  # following a link is allowed

    visit(site, poll, token)


def test_requests_of_the_page_itself_and_of_programs_are_answered(site: Site) -> None:
    async def poll(client: Client) -> None:
        own = {"Origin": f"http://{client.host}:{client.port}", "Sec-Fetch-Site": "same-origin"}
        for headers in (own, {"Sec-Fetch-Site": "none"}, {}):
            assert (await client.post("/api/proposal", data=yaml.safe_dump(CONFIG), headers=headers)).status == 200

    visit(site, poll)


def test_loopback_addresses() -> None:
    assert all(map(is_local, ("127.0.0.1", "::1", "[::1]", "localhost")))
    assert not any(map(is_local, ("0.0.0.0", "10.0.0.1", "localhost.example", "")))


def test_events_bring_the_pool_again_and_again(site: Site) -> None:
    async def poll(client: Client) -> None:
        async with client.get("/events") as stream:
            assert stream.headers["Content-Type"] == "text/event-stream"
            for _ in range(2):
                line = await stream.content.readuntil(b"\n\n")
                assert [mux["name"] for mux in json.loads(line.removeprefix(b"data: "))["muxes"]] == ["mux1", "mux2"]

    visit(site, poll)


def test_a_table_is_the_mux_s_own(site: Site, muxes: list[Any]) -> None:
    from lbmux.api.status_tables import slot_table

    snapshot = muxes[0].snapshot
    service = next(one for one in snapshot.services if one.name == "web")
    rows = {row: backend.name for row, (owner, backend) in snapshot.owners.items() if owner.name == "web"}
    want = [rows[row] for row in slot_table(snapshot, service).tolist()]

    async def poll(client: Client) -> None:
        answer = await (await client.get("/api/table?service=web")).json()
        assert [answer["names"][at] for at in unpacked(answer["slots"])] == want
        assert (await client.get("/api/table?service=unknown")).status == 400

    visit(site, poll)


def test_a_proposal_says_how_much_it_would_move(site: Site) -> None:
    proposed = json.loads(json.dumps(CONFIG))
    backends = proposed["services"][0]["backends"]
    backends[0]["weight"] = 0

    async def poll(client: Client) -> None:
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

    visit(site, poll)


def test_a_proposal_that_is_not_usable_says_line_and_field(site: Site) -> None:
    async def poll(client: Client) -> None:
        answer = await client.post("/api/proposal", data="services:\n- name: web\n  vip: nonsense\n")
        assert answer.status == 400
        assert "proposal:3: services[0].vip: " in (await answer.json())["error"]

    visit(site, poll)


def test_a_proposal_of_one_service_has_that_one_s_table(site: Site) -> None:
    async def poll(client: Client) -> None:
        for name, expected in (("web", ["web"]), ("absent", [])):
            answer = await client.post(f"/api/proposal?service={name}", data=yaml.safe_dump(CONFIG))
            assert [one["service"] for one in (await answer.json())["services"]] == expected

    visit(site, poll)


def many_large_tables() -> str:
    """10 KB that would be gigabytes of tables: one service each of 2,000,003 slots."""
    services = [
        {"name": f"s{n}", "vip": f"192.0.2.{n}", "protocol": "tcp", "port": 80, "backends": [{"dip": "10.1.1.2"}]}
        for n in range(1, 101)
    ]
    text = yaml.safe_dump({"maglev": {"size": 2_000_003}, "services": services}, default_flow_style=True)
    assert len(text) < 12_000
    return text


def test_a_proposal_with_too_many_slots_is_refused_before_it_is_built(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    monkeypatch.setattr(Weights, "table", lambda self: built.append(self.size))

    async def poll(client: Client) -> None:
        answer = await client.post("/api/proposal", data=many_large_tables())
        assert answer.status == 400 and built == []
        assert "at most 4000006 at a time" in (await answer.json())["error"]

    visit(site, poll)


def test_a_proposal_that_is_too_long_is_refused(site: Site) -> None:
    async def poll(client: Client) -> None:
        answer = await client.post("/api/proposal", data=b"#" * (MOST_PROPOSED_BYTES + 1))
        assert answer.status == 413
        assert (await answer.json())["error"] == "the configuration is longer than 1048576 bytes"

    visit(site, poll)


def test_a_proposal_that_is_not_text_is_refused(site: Site) -> None:
    async def poll(client: Client) -> None:
        answer = await client.post("/api/proposal", data=b"\xff\xfe\xfd", headers={"Content-Type": "text/x; charset=?"})
        assert answer.status == 400 and "proposal:1: " in (await answer.json())["error"]

    visit(site, poll)


def test_one_proposal_at_a_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(*given: object) -> list[object]:
        begun.set()
        assert go_on.wait(20)
        return []

    monkeypatch.setattr(dry_runs, "moves", slow)

    async def poll(client: Client) -> None:
        first = asyncio.create_task(client.post("/api/proposal", data="services: []"))
        assert await asyncio.to_thread(begun.wait, 20)
        second = await client.post("/api/proposal", data="services: []")
        assert second.status == 429 and "try again" in (await second.json())["error"]
        go_on.set()
        assert (await first).status == 200
        assert (await client.post("/api/proposal", data="services: []")).status == 200

    visit(site, poll)


def test_a_packet_is_explained_by_the_mux_that_was_asked_for(site: Site) -> None:
    async def poll(client: Client) -> None:
        asked = {"packet": "198.51.100.7:1 > 192.0.2.1:80/tcp", "mux": "mux2"}
        answer = await (await client.get("/api/explain", params=asked)).json()
        assert answer["verdict"] == "forwarded"
        refused = await client.get("/api/explain", params={"packet": "nonsense"})
        assert refused.status == 400 and "should be SRC:PORT" in (await refused.json())["error"]

    visit(site, poll)


def test_the_scoreboard_is_the_files_or_empty(site: Site) -> None:
    async def poll(client: Client) -> None:
        answer = await (await client.get("/api/scoreboard")).json()
        assert answer["result"] == json.loads(json.dumps(scoreboard_report.document(OUTCOMES, FAILURES, Load(), 123.4)))

    async def nothing(client: Client) -> None:
        assert (await (await client.get("/api/scoreboard")).json())["result"] is None

    visit(site, poll)
    visit(Site(site.places()), nothing)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"7", b"[" * 100_000], ids=["binary", "number", "brackets"])
def test_a_scoreboard_that_becomes_a_wrong_file_is_an_error_with_its_name(site: Site, content: bytes) -> None:
    assert site.scoreboard is not None
    site.scoreboard.write_bytes(content)

    async def poll(client: Client) -> None:
        answer = await client.get("/api/scoreboard")
        assert answer.status == 400 and str(site.scoreboard) in (await answer.json())["error"]

    visit(site, poll)


def test_events_say_when_the_scoreboard_is_another(site: Site) -> None:
    assert site.scoreboard is not None
    scoreboard = site.scoreboard

    async def stamps(client: Client) -> None:
        async with client.get("/events") as stream:

            async def stamp() -> Any:
                line = await stream.content.readuntil(b"\n\n")
                return json.loads(line.removeprefix(b"data: "))["scoreboard"]

            first = await stamp()
            assert first and await stamp() == first
            scoreboard.write_text(json.dumps(scoreboard_report.document(OUTCOMES[:1], [], Load(), 1.0)))
            async with asyncio.timeout(5):
                while await stamp() == first:
                    pass
            scoreboard.unlink()
            async with asyncio.timeout(5):
                while await stamp() is not None:
                    pass

    visit(site, stamps)
