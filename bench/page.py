"""The time until the web page shows a large pool: 1000 services of 10 backends, in Chromium.

A real mux forwards, and a real `lbmux web` polls it. Each navigation is timed until the totals are on the page.
Then the page's elements and height are read, in the overview and in the list of services.
"""

import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from bench.live import Bed
from bench.report import Result
from lbmux.lab.processes import python
from tests.tools.browser import Page, browser, executable

SERVICES, BACKENDS_EACH, HOSTS = 1000, 10, 200
NAVIGATIONS, WIDTH, HEIGHT = 5, 1280, 900
FLOWS, PPS, TRAFFIC_S = 10_000, 1000, 120.0
PAINTED = "document.getElementById('total-packets')?.textContent.includes('/s')"
SIZE = "[document.querySelectorAll('*').length, document.documentElement.scrollHeight]"
WHOLE = f"document.getElementById('counts').textContent.startsWith('{SERVICES:,} services')"
LISTED = "document.querySelectorAll('[data-view=services] .line').length > 10"


def run() -> list[Result]:
    if executable() is None:
        return []  # without Chromium
    with Bed() as bed, tempfile.TemporaryDirectory() as directory:
        bed.lab.write_config(_pool())
        bed.start_mux("packet")
        send = ("bench.send", "a0", "--seconds", str(TRAFFIC_S), "--flows", str(FLOWS), "--pps", str(PPS))
        traffic = bed.lab.popen("generator", python(*send), stdout=subprocess.DEVNULL)
        try:
            with _served(bed.lab.directory / "mux.sock") as url:
                return asyncio.run(_visit(url, Path(directory)))
        finally:
            traffic.terminate()
            traffic.wait()


def _pool() -> dict[str, object]:
    def backend(number: int) -> dict[str, object]:
        host = str(IPv4Address("10.1.0.1") + number % HOSTS)
        return {"name": f"b{number}", "dip": str(IPv4Address("10.2.0.1") + number), "host": host}

    services = [
        {
            "name": f"service{number}", "vip": str(IPv4Address("192.0.2.0") + number), "protocol": "tcp", "port": 80,
            "backends": [backend(number * BACKENDS_EACH + at) for at in range(BACKENDS_EACH)],
        }
        for number in range(SERVICES)
    ]  # fmt: skip
    return {"maglev": {"size": 251}, "flows": {"limit": 2 * FLOWS}, "services": services}


@contextmanager
def _served(control: Path) -> Iterator[str]:
    """Run `lbmux web` and yield its URL."""
    command = python("lbmux.cli.main", "web", "--port", "0", "--control", str(control))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(word for line in process.stderr for word in line.split() if word.startswith("http://"))
        finally:
            process.terminate()


async def _visit(url: str, directory: Path) -> list[Result]:
    async with browser(directory / "profile") as page:
        times = [await _painted_s(page, url) for _ in range(NAVIGATIONS)]
        await page.until(WHOLE)
        elements, height = await page.evaluate(SIZE)
        await page.evaluate("location.hash = '#/services'")
        await page.until(LISTED)
        listed, _ = await page.evaluate(SIZE)
    what = f"page of {SERVICES} services, {SERVICES * BACKENDS_EACH} backends"
    note = f"longest of {NAVIGATIONS}: {max(times) * 1000:.0f} ms"
    return [
        Result("page", f"{what}: totals painted", statistics.median(times) * 1000, "ms", goal="<= 1000", note=note),
        Result("page", "its elements: overview", elements, "", goal="< 3000", note=f"{height} pixels high"),
        Result("page", "its elements: list of services", listed, "", goal="< 3000"),
    ]


async def _painted_s(page: Page, url: str) -> float:
    await page.call("Page.navigate", url="about:blank")
    begun = time.monotonic()
    await page.open(url, WIDTH, HEIGHT, "light")
    await page.until(PAINTED)
    return time.monotonic() - begun
