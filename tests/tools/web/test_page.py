"""The page in a real browser, of a pool with traffic: on a desk and on a phone, light and dark."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from aiohttp.test_utils import TestServer
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from lbmux.lab.scoreboard import scoreboard_report
from lbmux.lab.scoreboard.experiment import Load, Outcome
from lbmux.tools.web.web_server import Site
from tests.linux.inside import CONFIG, client, dns
from tests.tools.browser import Page, browser, executable
from tests.tools.web.conftest import FAILURES, OUTCOMES, Served

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
  !element.closest(".scroll, details:not([open])") && element.getBoundingClientRect().right > innerWidth + 0.5
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


async def shows_the_services(page: Page, width: int) -> None:
    """All backends, also those that are out."""
    assert await page.evaluate(TEXTS % ".service h3") == ["web", "dns"]
    assert await page.evaluate(TEXTS % ".service:first-child td:first-child") == ["h1", "h2", "h3", "h4"]
    health = [text.split() for text in await page.evaluate(TEXTS % ".service:first-child td.health")]
    assert health == [
        ["up", "connected"], ["up", "connected"], ["down", "connection", "refused"],
        ["up", "mux1:", "connected", "disabled", "mux2:", "by", "command"],
    ]  # fmt: skip
    weights = ".service:first-child td.health + td"
    assert await page.evaluate(TEXTS % weights) == ["1", "2", "3", "1"]
    visible = f"getComputedStyle(document.querySelector({weights!r})).display !== 'none'"
    assert await page.evaluate(visible)
    await page.until("document.querySelectorAll('.service:first-child tr:nth-child(1) td')[6].textContent > '0'")
    assert await page.evaluate(TEXTS % ".service:first-child tr:nth-child(3) td:nth-child(7)") == ["0"]


async def shows_the_scoreboard(page: Page, scoreboard: Path) -> None:
    """Every column of every outcome, the failures; and another file when it is another."""
    heads = "#result [data-of=outcomes] th"
    await page.until(f"document.querySelector({heads!r}) !== null")
    names = [field.name.replace("_", " ") for field in fields(Outcome)]
    assert await page.evaluate(TEXTS % heads) == names
    second = await page.evaluate(TEXTS % "#result [data-of=outcomes] tbody tr:nth-child(2) td")
    assert second == ["ananta", "kill-backend", "500", "240", "237", "12", "200", "6", "211", "reset 240, no answer 6"]
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
        assert np.mean(seen) > 0.3  # it is dashed, and figures and others lie over it


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_the_page_shows_the_pool_fits_and_is_legible(
    site: Site, muxes: list[Served], tmp_path: Path, width: int, height: int, scheme: str
) -> None:
    assert site.scoreboard is not None
    scoreboard, site.interval_s = site.scoreboard, 0.4  # so long that rates are even where the machine is busy

    async def poll() -> None:
        async with (
            TestServer(site.application(None)) as server, browser(tmp_path / "profile") as page, traffic(muxes)
        ):  # fmt: skip
            await page.open(str(server.make_url("/")), width, height, scheme)
            await shows_the_pool(page)
            await shows_the_services(page, width)
            await asks(page)
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            assert await page.evaluate(OUTSIDE) == []
            assert await page.evaluate(READABLE % CONTRAST) == []
            await looks_right(page, tmp_path / "page.png", width, scheme)
            await shows_the_scoreboard(page, scoreboard)
            assert page.complaints == []

    asyncio.run(poll())


async def asks(page: Page) -> None:
    """A packet explained, and a change proposed."""
    proposed = yaml.safe_load(yaml.safe_dump(CONFIG))
    proposed["services"][0]["backends"][0]["weight"] = 0
    await page.until("document.querySelectorAll('#legend li').length > 1")
    await page.evaluate("document.getElementById('question').requestSubmit()")
    await page.until("document.querySelector('#steps .good')?.textContent.startsWith('forwarded')")
    await page.evaluate("document.querySelector('details').open = true")
    await page.evaluate(f"document.getElementById('proposed').value = {yaml.safe_dump(proposed)!r}")
    await page.evaluate("document.getElementById('proposal').requestSubmit()")
    await page.until("document.getElementById('table-said').textContent.includes('would move')")


def test_a_stopped_mux_is_shown_as_stopped(site: Site, muxes: list[Served], tmp_path: Path) -> None:
    """A mux that disappears is named, and its edges are cut."""

    async def poll() -> None:
        async with TestServer(site.application(None)) as server, browser(tmp_path / "profile") as page:
            await page.open(str(server.make_url("/")), 1280, 900, "light")
            async with traffic(muxes):
                await page.until(f"{RATES}['mux1'] > 0")
            await page.until(f"{RATES}['mux1'] === 0 && !document.querySelector('#map path.busy')")
            muxes[1].handlers.clear()
            await page.until("document.querySelectorAll('#map g.mux.bad').length === 1")
            edges = {tuple(edge) for edge in await page.evaluate(EDGES) if "mux2" in edge}
            assert edges == {(ROUTER, "mux2", "cut")}
            troubles = await page.evaluate(TEXTS % "#troubles li")
            assert any("mux2" in text and "its rates are unknown" in text for text in troubles)
            said = "document.querySelector('#map text.rate[data-of=%s]').textContent"
            assert await page.evaluate(said % '"mux2"') == "unknown"
            assert await page.evaluate(said % '"192.0.2.1"') == "0/s + ?"
            assert await page.evaluate("document.getElementById('total-packets').textContent") == "0/s + ?"

    asyncio.run(poll())
