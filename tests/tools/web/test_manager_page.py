"""The page at a manager: who may see it, who may change what, and whose name is in the log."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from lbmux.api.control_server import ControlServer
from lbmux.manager.api_models import (
    ApplyAnswer,
    ApplyRequest,
    Done,
    EventsAnswer,
    TokenAnswer,
    TokenRequest,
    TokensAnswer,
)
from lbmux.manager.http_server import HttpServer
from lbmux.manager.proposals import Proposal
from lbmux.manager.records import list_events
from lbmux.tools.web.manager_page import COOKIE, add_page
from tests.linux.inside import CONFIG
from tests.manager.running import Running, running_manager
from tests.manager.test_nodes import Lab, run, until
from tests.manager.test_pool import ALICE
from tests.tools.browser import browser, executable
from tests.tools.web.conftest import UP, Served

DRAIN = {"action": "drain", "service": "web", "backend": "h1", "reason": "new disk"}
LESS = CONFIG | {"services": CONFIG["services"][:1]}


@dataclass(frozen=True)
class Site:
    """A manager with its page and a connected mux."""

    running: Running

    def token(self, role: str, *services: str) -> str:
        request = TokenRequest.model_validate({"name": f"{role}1", "role": role, "services": services})
        return self.running.client().post("/v1/tokens", request, TokenAnswer).token

    def visit(self, what: Callable[[aiohttp.ClientSession], Awaitable[None]], token: str = "") -> None:
        """Do something as a client of the page, logged in if there is a token."""

        async def there() -> None:
            jar = aiohttp.CookieJar(unsafe=True)  # it keeps cookies of an address, too
            connector = aiohttp.TCPConnector(ssl=False)
            async with aiohttp.ClientSession(self.running.url, cookie_jar=jar, connector=connector) as session:
                if token:
                    async with session.post("/login", data={"token": token}, allow_redirects=False) as answer:
                        assert (answer.status, answer.headers["Location"]) == (303, "/")
                await what(session)

        asyncio.run(there())

    def events(self) -> list[tuple[str, str, str]]:
        listed = self.running.client().get("/v1/events", EventsAnswer).events
        return [(one.kind, one.by, one.origin) for one in listed]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    mux = Served(tmp_path / "mux1.sock", UP)
    with ExitStack() as stack:
        running = stack.enter_context(running_manager(tmp_path / "manager", add_page))
        running.client().post("/v1/config", ApplyRequest(file=yaml.safe_dump(CONFIG)), ApplyAnswer)
        stack.enter_context(running.joined("mux1", "mux", ControlServer(mux.path, mux.handlers).answers))
        yield Site(running)


async def overview(session: aiohttp.ClientSession) -> dict[str, Any]:
    async with session.get("/events") as stream:
        line = await stream.content.readuntil(b"\n\n")
        document: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
        return document


def test_without_a_login_there_is_only_the_form(site: Site) -> None:
    async def ask(session: aiohttp.ClientSession) -> None:
        async with session.get("/") as answer:
            assert answer.url.path == "/login" and "Log in" in await answer.text()
        for path in ("/events", "/api/services", "/api/mux?name=mux1"):
            async with session.get(path) as answer:
                assert answer.status == 401 and (await answer.json())["error"] == "log in first"
        async with session.post("/api/override", json=DRAIN) as answer:
            assert answer.status == 401
        async with session.post("/login", data={"token": "lbmux_<b>"}) as answer:
            text = await answer.text()
            assert answer.status == 401 and "the token is not one of lbmux" in text and COOKIE not in answer.cookies

    site.visit(ask)


def test_the_cookie_is_for_this_host_over_https_and_hidden_from_scripts(site: Site) -> None:
    async def ask(session: aiohttp.ClientSession) -> None:
        async with session.post("/login", data={"token": site.running.token}, allow_redirects=False) as answer:
            attributes = {one.strip() for one in answer.headers["Set-Cookie"].split(";")[1:]}
            assert attributes == {"HttpOnly", "Secure", "SameSite=Strict", "Path=/"}
        async with session.get("/") as answer:
            assert "frame-ancestors" in answer.headers["Content-Security-Policy"]
            assert 'id="totals"' in await answer.text()
        async with session.post("/logout") as answer:
            assert answer.url.path == "/login"
        async with session.get("/events") as answer:
            assert answer.status == 401

    site.visit(ask)


def test_a_viewer_sees_the_pool_and_changes_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def ask(session: aiohttp.ClientSession) -> None:
        shown = await overview(session)
        assert [(one["name"], one["error"]) for one in shown["muxes"]] == [("mux1", "")]
        assert shown["can"] == {"override": False, "apply": False, "explain": False}
        assert shown["visitor"] == "viewer1 (viewer)"
        assert [one["text"].partition(":")[0] for one in shown["events"] if "apply" in one["text"]] == [
            "apply by admin"
        ]
        async with session.get("/api/service", params={"name": "web"}) as answer:
            assert len((await answer.json())["service"]["backends"]) == 4
        for path in ("/api/override", "/api/apply"):
            async with session.post(path, json=DRAIN) as answer:
                assert answer.status == 403 and "needs the role operator" in (await answer.json())["error"]

    token, before = site.token("viewer"), site.events()
    with caplog.at_level(logging.WARNING):
        site.visit(ask, token)
    assert "POST /api/override from 127.0.0.1 refused: token viewer1 is a viewer's" in caplog.text
    assert site.events() == before


def test_an_open_page_ends_when_its_token_is_revoked(site: Site) -> None:
    async def ask(session: aiohttp.ClientSession) -> None:
        async with session.get("/events") as stream:
            assert await stream.content.readuntil(b"\n\n")
            tokens = await asyncio.to_thread(site.running.client().get, "/v1/tokens", TokensAnswer)
            (viewer,) = (one.id for one in tokens.tokens if one.name == "viewer1")
            await asyncio.to_thread(site.running.client().delete, "/v1/tokens", Done, id=viewer)
            async with asyncio.timeout(30):
                await stream.content.read()
        async with session.get("/events") as answer:
            assert answer.status == 401

    site.visit(ask, site.token("viewer"))


def test_an_operator_s_changes_are_logged_with_name_and_address(site: Site) -> None:
    async def ask(session: aiohttp.ClientSession) -> None:
        assert (await overview(session))["can"] == {"override": True, "apply": True, "explain": False}
        async with session.post("/api/override", json=DRAIN) as answer:
            assert (await answer.json())["said"] == ["web/h1: drain"]
        for query in ("?dry_run=1", ""):
            async with session.post(f"/api/apply{query}", data=yaml.safe_dump(LESS)) as answer:
                said = await answer.json()
                assert (answer.status, "removed" in str(said)) == (200, True) or "--force" in str(said["error"]), said

    site.visit(ask, site.token("operator"))
    assert ("override", "operator1", "127.0.0.1") in site.events()


def test_a_token_of_one_service_changes_that_one_only(site: Site) -> None:
    async def ask(session: aiohttp.ClientSession) -> None:
        assert (await overview(session))["can"] == {"override": True, "apply": False, "explain": False}
        async with session.post("/api/override", json=DRAIN) as answer:
            assert answer.status == 403 and "may change only service dns" in (await answer.json())["error"]

    site.visit(ask, site.token("operator", "dns"))


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://attacker.example"}, {"Sec-Fetch-Site": "cross-site"}], ids=["origin", "fetch"]
)
def test_a_page_of_another_origin_changes_nothing(site: Site, headers: dict[str, str]) -> None:
    async def ask(session: aiohttp.ClientSession) -> None:
        for path in ("/api/override", "/api/apply", "/login", "/logout"):
            async with session.post(path, json=DRAIN, headers=headers) as answer:
                assert answer.status == 403 and "another origin" in (await answer.json())["error"]
        async with session.get("/events", headers=headers) as answer:
            assert answer.status == 403

    site.visit(ask, site.token("operator"))


def test_only_a_manager_forwards_an_address(site: Site) -> None:
    async def ask(session: aiohttp.ClientSession) -> None:
        headers = {"Authorization": f"Bearer {site.running.token}", "Forwarded": "for=203.0.113.9"}
        async with session.post("/v1/overrides", json=DRAIN, headers=headers) as answer:
            assert answer.status == 200

    site.visit(ask)
    assert ("override", "admin", "127.0.0.1") in site.events()


def test_the_page_of_another_manager_has_all_muxes_and_sends_changes_to_the_primary(tmp_path: Path) -> None:
    mux = Served(tmp_path / "mux1.sock", UP)

    async def scenario(lab: Lab) -> None:
        first, second = lab.managers
        await lab.pool.apply(Proposal(yaml.safe_dump(CONFIG).encode()), ALICE)
        node = lab.node("mux1", first)
        node.client.answering = ControlServer(mux.path, mux.handlers).answers
        async with (
            node.client.following(node.accept),
            HttpServer(second, add_page).listening("127.0.0.1", 0) as port,
            aiohttp.ClientSession(
                f"https://127.0.0.1:{port}", cookie_jar=aiohttp.CookieJar(unsafe=True),
                connector=aiohttp.TCPConnector(ssl=False),
            ) as session,
        ):  # fmt: skip
            await until(lambda: "mux1" in first.reports and second.primary.url == first.url)
            await session.post("/login", data={"token": lab.token})
            assert [(one["name"], one["error"]) for one in (await overview(session))["muxes"]] == [("mux1", "")]
            async with session.post("/api/override", json=DRAIN) as answer:
                text = await answer.text()
                assert json.loads(text).get("said") == ["web/h1: drain"], text
        (event, *_) = await list_events(first.store, 1)
        assert (event.kind, event.origin) == ("override", "127.0.0.1")

    run(tmp_path, scenario, 2)


def test_it_needs_no_compiled_code() -> None:
    """The manager's unit forbids memory that is written and executed."""
    check = "import sys, lbmux.tools.web.manager_page; sys.exit(bool({'numba', 'llvmlite'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.skipif(executable() is None, reason="needs Chromium")
def test_an_operator_logs_in_drains_a_backend_and_logs_out(site: Site, tmp_path: Path) -> None:
    async def visit() -> None:
        async with browser(tmp_path / "profile") as page:
            await page.open(f"{site.running.url}/", 1280, 900, "light")
            await page.until("document.getElementById('token') !== null")
            await page.evaluate(f"document.getElementById('token').value = {token!r}")
            await page.evaluate("document.querySelector('form button').click()")
            await page.until("document.getElementById('state')?.textContent === 'live'")
            assert await page.evaluate("document.getElementById('explain-link').hidden")
            assert (
                await page.evaluate("document.querySelector('#visitor output').textContent") == "operator1 (operator)"
            )
            await page.evaluate("location.hash = '#/backend/web/h1'")
            await page.until("document.getElementById('override')?.hidden === false")
            await page.evaluate("document.querySelector('#override [value=drain]').click()")
            await page.until("document.querySelector('#override output').textContent === 'web/h1: drain'")
            assert await page.evaluate("document.cookie") == ""
            assert page.complaints == []
            await page.evaluate("document.querySelector('#visitor button').click()")
            await page.until("document.getElementById('token') !== null")

    token = site.token("operator")
    asyncio.run(visit())
    assert ("override", "operator1", "127.0.0.1") in site.events()
