"""The page in a real browser, of a pool with traffic: on a desk and on a phone, light and dark."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from aiohttp.test_utils import TestServer
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from lbmux.api.answers import BackendHealth, HistoryEvent, Overridden
from lbmux.api.requests import Override, Request, SetWeight
from lbmux.lab.scoreboard import scoreboard_report
from lbmux.lab.scoreboard.experiment import Load, Outcome
from lbmux.tools.web.web_server import Site
from tests.api.answering import answering
from tests.linux.inside import CONFIG, client, dns
from tests.tools.browser import Page, browser, executable
from tests.tools.web.conftest import FAILURES, OUTCOMES, POOL, UP, Served

pytestmark = pytest.mark.skipif(executable() is None, reason="needs Chromium")

CONTRAST = 4.5
"""WCAG 2.2, 1.4.3, of text of this size."""
READABLE = """(() => {
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const rect = element.tagName === "g" && element.querySelector("rect");
      const colour = parsed(rect ? getComputedStyle(rect).fill : getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    if (!element.getClientRects().length || element.tagName === "title") continue;
    const style = getComputedStyle(element), svg = element instanceof SVGElement;
    const two = [parsed(svg ? style.fill : style.color), ground(element)].map(luminance).sort((a, b) => b - a);
    const ratio = (two[0] + 0.05) / (two[1] + 0.05);
    if (ratio < %s) bad.push(`${element.tagName} ${element.textContent}: ${ratio.toFixed(2)}`);
  }
  return bad;
})()"""
OUTSIDE = """[...document.querySelectorAll("main *")].filter((element) =>
  !element.closest(".scroll, .line > span, details:not([open])")
    && element.getBoundingClientRect().right > innerWidth + 0.5
).map((element) => element.outerHTML.slice(0, 80))"""


TEXTS = "[...document.querySelectorAll(%r)].map((element) => element.innerText ?? element.textContent)"
EDGES = """[...document.querySelectorAll('#map path.edge')].map((path) => [
  path.dataset.from, path.dataset.to, path.classList[1] ?? ''])"""
RATES = """Object.fromEntries([...document.querySelectorAll('#map text.rate')].map((text) => [
  text.dataset.of, parseFloat(text.textContent)]))"""
ALONG = """[...document.querySelectorAll('#map path.busy')].map((path) => {
  const map = document.getElementById('map').getBoundingClientRect(), length = path.getTotalLength();
  return [...Array(60).keys()].map((at) => path.getPointAtLength((length * (at + 1)) / 62))
    .map((point) => [point.x + map.left + scrollX, point.y + map.top + scrollY]);
})"""
"""Points on each edge with traffic, in coordinates of the page."""
ACCENT = {"light": "#0b6b5b", "dark": "#5fd3bb"}
ROUTER, SILENT, MUXES = "10.0.1.1", "10.0.2.1", ("mux1", "mux2")
WANTED = {
    ("192.0.2.1", ROUTER, "busy"), ("192.0.2.2", ROUTER, "busy"),
    (ROUTER, "mux1", "busy"), (ROUTER, "mux2", "busy"), (SILENT, "mux2", "cut"),
    ("mux1", "10.1.1.2", "busy"), ("mux1", "10.1.2.2", "busy"), ("mux1", "10.1.3.2", "cut"),
    ("mux1", "10.1.4.2", "busy"), ("mux2", "10.1.1.2", "busy"), ("mux2", "10.1.2.2", ""),
    ("mux2", "10.1.3.2", "cut"), ("mux2", "10.1.4.2", "cut"),
}  # fmt: skip
"""What the map has while the first mux forwards web and the second dns."""
DRAWN = """[...document.querySelectorAll('#plots canvas')].map((canvas) => {
  const copy = Object.assign(document.createElement('canvas'), { width: canvas.width, height: canvas.height });
  const pen = copy.getContext('2d', { willReadFrequently: true });
  pen.drawImage(canvas, 0, 0);
  const pixels = pen.getImageData(0, 0, copy.width, copy.height).data;
  const accent = getComputedStyle(canvas).getPropertyValue('--accent').match(/\\w\\w/g).map((hex) => parseInt(hex, 16));
  let drawn = 0;
  for (let at = 0; at < pixels.length; at += 4)
    if (pixels[at + 3] > 200 && accent.every((value, n) => Math.abs(pixels[at + n] - value) < 24)) drawn += 1;
  return drawn;
})"""
"""How many pixels of each plot have the colour of its line."""
WIDE, MOST_ELEMENTS = 600, 3000
TICK_S, WEB_A_TICK, DNS_A_TICK = 0.1, 20, 10


@contextlib.asynccontextmanager
async def traffic(muxes: list[Served]) -> AsyncIterator[None]:
    """Counters that move: 200 packets per second of web through the first mux, 100 of dns through the second."""

    async def go_on() -> None:
        begun, ticks = time.monotonic(), 0
        while True:
            muxes[0].send(*(client(port) for port in range(3000, 3000 + WEB_A_TICK)))
            muxes[1].send(*(dns(port) for port in range(3000, 3000 + DNS_A_TICK)))
            ticks += 1
            await asyncio.sleep(max(0.0, begun + ticks * TICK_S - time.monotonic()))

    task = asyncio.create_task(go_on())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def shows_the_pool(page: Page) -> None:
    """Nodes, edges, and rates that are those of the traffic."""
    wanted = json.dumps(sorted(WANTED), separators=(",", ":"))
    await page.until(f"JSON.stringify({EDGES}.sort()) === {wanted!r}")
    assert await page.evaluate(TEXTS % "#map g.vip text") == ["192.0.2.1", "web", "192.0.2.2", "dns"]
    assert await page.evaluate(TEXTS % "#map g.router text:first-of-type") == [ROUTER, SILENT]
    assert await page.evaluate(TEXTS % "#map g.mux text:first-of-type") == [*MUXES]
    assert await page.evaluate(TEXTS % "#map g.host text:first-of-type") == [
        "10.1.1.2", "10.1.2.2", "10.1.3.2", "10.1.4.2"
    ]  # fmt: skip
    for of, per_s in (("192.0.2.1", 200), ("mux1", 200), ("192.0.2.2", 100), ("mux2", 100), ("mux2 10.1.1.2", 100)):
        await page.until(f"Math.abs({RATES}[{of!r}] / {per_s} - 1) < 0.3")
    rates = await page.evaluate(RATES)
    assert rates["mux2 10.1.2.2"] == 0 and "mux1 10.1.3.2" not in rates
    to_hosts = [rate for of, rate in rates.items() if of.startswith("mux1 ")]
    assert len(to_hosts) == 3 and min(to_hosts) > 0
    assert sum(to_hosts) == pytest.approx(rates["mux1"], abs=1.6)  # each is rounded


async def opens(page: Page, view: str) -> None:
    """Go to a view by its address."""
    await page.evaluate(f"location.hash = {f'#/{view}'!r}")
    await page.until(f"!document.querySelector('[data-view={view.partition('/')[0]}]').hidden")


async def shows_totals_and_history(page: Page) -> None:
    """Sums over the muxes, a plot of each, the muxes, the busiest services, and what needs attention."""
    await page.until("document.getElementById('state')?.textContent === 'live'")
    for total, per_s in (("packets", 300), ("bits", 300 * 8 * 50)):
        text = f"document.getElementById('total-{total}').textContent"
        scale = f"({text}.includes(' k') ? 1000 : 1)"
        await page.until(f"Math.abs(parseFloat({text}) * {scale} / {per_s} - 1) < 0.3")
    assert await page.evaluate(TEXTS % "#plots figcaption b") == ["Packets", "Bits", "New flows", "Dropped"]
    await page.until(f"{DRAWN}.slice(0, 2).every((drawn) => drawn > 0)")
    assert await page.evaluate(TEXTS % "#muxes .tile b") == ["● mux1", "▲ mux2"]
    await page.until("document.querySelectorAll('#busiest li').length === 2")
    await page.until("document.getElementById('counts').textContent.startsWith('2 services, 5 backends on 4 hosts')")
    assert await page.evaluate(TEXTS % "#troubles .symbol") == ["▲", "▲", "▲", "◆"]
    planned = await page.evaluate(TEXTS % "#troubles li:last-child")
    assert planned == ["◆ web/h4 disabled: by command (mux2)"]


async def shows_the_services(page: Page) -> None:
    """A line for each service, and all backends of one, also those that are out."""
    rows = "[data-view=services] .line"
    await opens(page, "services")
    await page.until(f"document.querySelectorAll({rows!r}).length === 2")
    assert await page.evaluate(TEXTS % f"{rows} > span:first-child") == ["▲ web", "● dns"]
    await page.evaluate("document.querySelector('[data-view=services] .only-problems').click()")
    assert await page.evaluate(TEXTS % f"{rows} > span:first-child") == ["▲ web"]
    await page.evaluate(f"document.querySelector({rows!r}).click()")
    rows = "[data-view=service] .line"
    await page.until(f"document.querySelectorAll({rows!r}).length === 4")
    assert await page.evaluate(TEXTS % f"{rows} > span:first-child") == ["h1", "h2", "h3", "h4"]
    assert await page.evaluate(TEXTS % f"{rows} > .health") == [
        "● up: connected", "● up: connected", "▲ down: connection refused",
        "◆ up: connected (mux1); disabled: by command (mux2)",
    ]  # fmt: skip
    assert await page.evaluate(TEXTS % f"{rows} > .health + span") == ["1", "2", "3", "1"]
    last = f"[...document.querySelectorAll('{rows} > span:last-child')].map((cell) => parseFloat(cell.textContent))"
    await page.until(f"{last}[0] > 0 && {last}[2] === 0")


async def finds_names(page: Page) -> None:
    """The search field leads to a host, and from there to a backend."""
    await page.evaluate("document.getElementById('search').value = '10.1.4'")
    await page.evaluate("document.getElementById('search').dispatchEvent(new Event('input'))")
    await page.until("document.querySelectorAll('#found a').length === 2")
    await page.evaluate("document.querySelector('#found a').click()")
    await page.until("document.querySelectorAll('[data-view=host] .line').length === 1")
    await page.evaluate("document.querySelector('[data-view=host] .line').click()")
    await page.until("document.querySelector('[data-view=backend] h2').textContent === 'web/h4'")
    await page.until("document.querySelectorAll('[data-view=backend] .problems li').length === 2")


async def shows_a_mux_and_events(page: Page) -> None:
    await opens(page, "mux/mux2")
    await page.until("document.querySelectorAll('[data-view=mux] figure').length === 4")
    assert await page.evaluate(TEXTS % "[data-view=mux] .problems .symbol") == ["●", "▲"]
    await opens(page, "events")
    await page.until("document.querySelector('[data-view=events] .line')?.textContent.includes('backend h3 is down')")


async def shows_the_scoreboard(page: Page, scoreboard: Path) -> None:
    """Every column of every outcome, the failures; and another file when it is another."""
    await opens(page, "scoreboard")
    heads = "#result [data-of=outcomes] th"
    await page.until(f"document.querySelector({heads!r}) !== null")
    names = [field.name.replace("_", " ") for field in fields(Outcome)]
    assert await page.evaluate(TEXTS % heads) == names
    second = await page.evaluate(TEXTS % "#result [data-of=outcomes] tbody tr:nth-child(2) td")
    assert second == [
        "ananta",
        "kill-backend",
        "500",
        "240",
        "237",
        "12",
        "200",
        "6",
        "211",
        "reset 240, no answer 6",
        "",
        "",
    ]
    assert await page.evaluate(TEXTS % "#result [data-of=outcomes] td.bad") == ["240"]
    assert await page.evaluate(TEXTS % "#result [data-of=failures] td") == [*FAILURES[0]]
    assert "connections 500" in (await page.evaluate(TEXTS % "#result .note"))[0]
    scoreboard.write_text(json.dumps(scoreboard_report.document(OUTCOMES[:1], [], Load(), 5.0)))
    await page.until("document.querySelectorAll('#result tbody tr').length === 1")
    assert await page.evaluate(TEXTS % "#result h3") == []


async def looks_right(page: Page, path: Path, width: int, scheme: str) -> None:
    """The picture shows the whole page in its colours, and the edges that have traffic."""
    points = await page.evaluate(ALONG)
    height = await page.evaluate("document.documentElement.scrollHeight")
    await page.screenshot(path)
    picture = imread(path)[:, :, :3]
    assert picture.shape == (height, width, 3)
    ground = picture.reshape(-1, 3).mean()
    assert ground < 0.25 if scheme == "dark" else ground > 0.75
    accent = to_rgb(ACCENT[scheme])
    for edge in points:
        around = [picture[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] for x, y in edge]
        seen = [np.abs(pixels - accent).max(2).min() < 0.1 for pixels in around]
        assert np.mean(seen) > 0.3  # the line is dashed, and other elements cover it


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_the_page_shows_the_pool_fits_and_is_legible(
    site: Site, muxes: list[Served], tmp_path: Path, width: int, height: int, scheme: str
) -> None:
    assert site.scoreboard is not None
    scoreboard, site.poller.interval_s = site.scoreboard, 0.4  # long enough for even rates on a busy machine
    muxes[0].events.append(HistoryEvent(time.time(), "warning", "backend h3 is down: connection refused"))

    async def poll() -> None:
        async with (
            TestServer(site.application(None)) as server, browser(tmp_path / "profile") as page, traffic(muxes)
        ):  # fmt: skip
            await page.open(str(server.make_url("/")), width, height, scheme)
            await shows_totals_and_history(page)
            assert width < WIDE or await page.evaluate("document.documentElement.scrollHeight") == height
            await fits_and_is_legible(page, width)
            await opens(page, "map")
            await shows_the_pool(page)
            await fits_and_is_legible(page, width)
            await looks_right(page, tmp_path / "page.png", width, scheme)
            await shows_the_services(page)
            await asks_what_would_move(page)
            await fits_and_is_legible(page, width)
            for view in (finds_names, shows_a_mux_and_events, asks_for_an_explanation):
                await view(page)
                await fits_and_is_legible(page, width)
            await shows_the_scoreboard(page, scoreboard)
            await fits_and_is_legible(page, width)
            assert page.complaints == []

    asyncio.run(poll())


async def fits_and_is_legible(page: Page, width: int) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth") == width
    assert await page.evaluate(OUTSIDE) == []
    assert await page.evaluate(READABLE % CONTRAST) == []


async def asks_what_would_move(page: Page) -> None:
    proposed = yaml.safe_load(yaml.safe_dump(CONFIG))
    proposed["services"][0]["backends"][0]["weight"] = 0
    await page.until("document.querySelectorAll('#legend li').length > 1")
    await page.evaluate("document.querySelector('details').open = true")
    await page.evaluate(f"document.getElementById('proposed').value = {yaml.safe_dump(proposed)!r}")
    await page.evaluate("document.getElementById('proposal').requestSubmit()")
    await page.until("document.getElementById('table-said').textContent.includes('would move')")


async def asks_for_an_explanation(page: Page) -> None:
    await opens(page, "explain")
    await page.until("document.getElementById('explain-mux').options.length === 2")
    await page.evaluate("document.getElementById('question').requestSubmit()")
    await page.until("document.querySelector('#steps .good')?.textContent.startsWith('forwarded')")


@pytest.mark.slow
def test_a_stopped_mux_is_shown_as_stopped(site: Site, muxes: list[Served], tmp_path: Path) -> None:
    """A mux that disappears is named, its edges are cut, and what it forwards is unknown."""

    async def poll() -> None:
        async with TestServer(site.application(None)) as server, browser(tmp_path / "profile") as page:
            await page.open(str(server.make_url("/#/map")), 1280, 900, "light")
            async with traffic(muxes):
                await page.until(f"{RATES}['mux1'] > 0")
            await page.until(f"{RATES}['mux1'] === 0 && !document.querySelector('#map path.busy')")
            muxes[1].handlers.clear()
            await page.until("document.querySelectorAll('#map g.mux.bad').length === 1")
            edges = {tuple(edge) for edge in await page.evaluate(EDGES) if "mux2" in edge}
            assert edges == {(ROUTER, "mux2", "cut")}
            rate = "document.querySelector('#map text.rate[data-of=%s]').textContent"
            assert await page.evaluate(rate % '"mux2"') == "unknown"
            await page.until(rate % '"192.0.2.1"' + " === '0/s + ?'")
            await opens(page, "overview")
            troubles = "[...document.querySelectorAll('#troubles li')].map((line) => line.textContent)"
            await page.until(f"{troubles}.some((text) => /mux2.*its rates are unknown/.test(text))")
            await page.until("document.getElementById('total-packets').textContent === '0/s + ?'")

    asyncio.run(poll())


@pytest.mark.slow
def test_an_operator_drains_and_reweights_a_backend(muxes: list[Served], tmp_path: Path) -> None:
    asked: list[Request[Any]] = []

    async def change(request: Request[Any]) -> Overridden:
        asked.append(request)
        line = BackendHealth("web", "h1", "draining", "by command", None, "10.1.1.2", 8080, "10.1.1.2", 7, "ipip")
        return Overridden(1, "mux", [line])

    async def poll() -> None:
        site = Site([mux.path for mux in muxes], None, 0.1, actions=True)
        async with TestServer(site.application(None)) as server, browser(tmp_path / "profile") as page:
            await page.open(str(server.make_url("/#/backend/web/h1")), 1280, 900, "light")
            await page.until("document.getElementById('override')?.hidden === false")
            await page.evaluate("document.querySelector('#override [value=drain]').click()")
            said = "document.querySelector('#override output').textContent"
            await page.until(f"{said}.startsWith('mux1: web/h1 is draining, weight 7; mux2: ')")
            await page.evaluate("document.querySelector('#override [name=weight]').value = '7'")
            await page.evaluate("document.querySelector('#override [value=weight]').click()")
            await page.until(f"{said} !== ''")
            async with asyncio.timeout(20):
                while len(asked) < 2 * len(muxes):
                    await asyncio.sleep(0.05)
            assert await page.evaluate("document.getElementById('apply-link').hidden")
            await fits_and_is_legible(page, 1280)
            assert page.complaints == []

    for mux in muxes:
        mux.handlers |= {Override: change, SetWeight: change}
    asyncio.run(poll())
    assert sorted(map(repr, asked)) == sorted(
        map(repr, [Override("h1", "drain", "web"), SetWeight("h1", 7, "web")] * len(muxes))
    )


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Site]:
    """Yield a mux with 300 services of 10 backends each."""
    services = [
        {
            "name": f"service{n}", "vip": f"192.0.{2 + n // 200}.{n % 200 + 1}", "protocol": "tcp", "port": 80,
            "backends": [{"name": f"b{b}", "dip": f"10.{b + 1}.{n // 200}.{n % 200 + 1}"} for b in range(10)],
        }
        for n in range(300)
    ]  # fmt: skip
    mux = Served(tmp_path / "mux1.sock", UP, pool=POOL | {"services": services})
    with answering(mux.path, mux.handlers):
        yield Site([mux.path], None, 0.1)


@pytest.mark.slow
def test_a_large_pool_takes_no_more_elements_than_fit_on_the_screen(large: Site, tmp_path: Path) -> None:
    async def poll() -> None:
        async with TestServer(large.application(None)) as server, browser(tmp_path / "profile") as page:
            await page.open(str(server.make_url("/")), 1280, 900, "light")
            await page.until("document.getElementById('state')?.textContent === 'live'")
            await page.until("document.getElementById('counts').textContent.startsWith('300 services, 3,000 backends')")
            assert await page.evaluate("document.documentElement.scrollHeight") == 900
            await opens(page, "services")
            await page.until("document.querySelectorAll('[data-view=services] .line').length > 10")
            scroller = "document.querySelector('[data-view=services] .scroller')"
            await page.evaluate(f"{scroller}.scrollTop = {scroller}.scrollHeight")
            last = "[...document.querySelectorAll('[data-view=services] .line')].at(-1).textContent"
            await page.until(f"{last}.includes('service299')")
            await opens(page, "hosts")
            await page.until("document.querySelectorAll('[data-view=hosts] .line').length > 10")
            await opens(page, "map")
            await page.until("document.getElementById('map-said').textContent.includes('3000 hosts')")
            assert await page.evaluate("document.querySelectorAll('*').length") < MOST_ELEMENTS

    asyncio.run(poll())
