"""The page in a real browser: on a desk and on a phone, light and dark; nothing overflows, everything can be read."""

import asyncio
from pathlib import Path

import pytest
import yaml
from aiohttp.test_utils import TestServer

from lbmux.tools.web.server import Site
from tests.control.inside import CONFIG
from tests.tools.browser import browser, executable

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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_the_page_fits_can_be_read_and_works(site: Site, tmp_path: Path, width: int, height: int, scheme: str) -> None:
    proposed = yaml.safe_load(yaml.safe_dump(CONFIG))
    proposed["services"][0]["backends"][0]["weight"] = 0

    async def look() -> None:
        async with TestServer(site.application(None)) as server, browser(tmp_path / "profile") as page:
            await page.open(str(server.make_url("/")), width, height, scheme)
            await page.until("document.querySelectorAll('#map .mux').length === 2")
            await page.until("document.querySelectorAll('#legend li').length > 1")
            await page.evaluate("document.getElementById('question').requestSubmit()")
            await page.until("document.querySelector('#steps .good')?.textContent.startsWith('forwarded')")
            await page.evaluate("document.querySelector('details').open = true")
            await page.evaluate(f"document.getElementById('proposed').value = {yaml.safe_dump(proposed)!r}")
            await page.evaluate("document.getElementById('proposal').requestSubmit()")
            await page.until("document.getElementById('table-said').textContent.includes('would move')")
            await page.until("document.querySelectorAll('#result tr').length === 2")
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            assert await page.evaluate(OUTSIDE) == []
            assert await page.evaluate(READABLE % CONTRAST) == []
            dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (dark == "rgb(16, 21, 20)") is (scheme == "dark")
            assert page.complaints == []
            await page.screenshot(tmp_path / "page.png")
            assert (tmp_path / "page.png").stat().st_size > 10_000

    asyncio.run(look())
