"""What a scrape of a mux's metrics costs: 1000 services, 10,000 backends; and whether packets would wait for it.

The event loop of this process stands for the mux's: one task looks at the clock each half millisecond.  The scraper is
another process, as it is another machine in life.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from ipaddress import IPv4Address
from typing import Any

from bench.report import Result, median
from lbmux.control import live_flows
from lbmux.control.config import Config
from lbmux.control.moment import Moment
from lbmux.control.mux_tables import MuxTables, sizes_for
from lbmux.datapath.tables import TRUSTED
from lbmux.programs.daemon import ready
from lbmux.programs.daemon import run as run_daemon
from lbmux.programs.metrics.families import Reading, exposition
from lbmux.programs.metrics.server import MetricsServer
from lbmux.targets.regions import Tables, now_ticks

SERVICES, BACKENDS_EACH, FLOWS = 1000, 10, (100_000, 1_000_000)
SCRAPES, PAUSE_S, TICK_S = 15, 0.2, 0.0005
SCRAPER = f"""
import json, sys, time, urllib.request
times = []
for _ in range({SCRAPES}):
    began = time.perf_counter()
    with urllib.request.urlopen(sys.argv[1], timeout=30) as answer:
        text = answer.read()
    times.append(time.perf_counter() - began)
    time.sleep({PAUSE_S})
print(json.dumps([times, len(text), text.count(b"\\n")]))
"""


def run() -> list[Result]:
    return [result for flows in FLOWS for result in _results(flows)]


def _results(flows: int) -> list[Result]:
    found: dict[str, Any] = {}
    run_daemon(_measure(_mux(flows), found))
    # The first connects and imports; those after it are what a running mux has every few seconds.
    times, length, lines = found["scrapes"]
    scrape_ms = statistics.median(times[1:]) * 1000
    quiet_ms, busy_ms = found["quiet"] * 1000, found["busy"] * 1000
    what = f"{SERVICES} services, {SERVICES * BACKENDS_EACH} backends, {found['flows']} flows"
    size = f"{lines} lines, {length / 1e6:.1f} MB, longest of {SCRAPES}: {max(times) * 1000:.0f} ms"
    return [
        Result("scrape", f"scrape of {what}", scrape_ms, "ms", goal="<= 200", note=size),
        Result("scrape", "its CPU time in the mux, HTTP not counted", found["cpu"] * 1000, "ms"),
        Result("scrape", "longest stall of the event loop, no scrape", quiet_ms, "ms"),
        Result("scrape", f"longest stall of the event loop, {SCRAPES} scrapes", busy_ms, "ms", "no scrape",
               busy_ms / quiet_ms if quiet_ms else None),
    ]  # fmt: skip


def _mux(flows: int) -> MuxTables:
    services = [
        {
            "name": f"service{number}", "vip": str(IPv4Address("192.0.2.0") + number), "protocol": "tcp", "port": 80,
            "backends": [
                {"name": f"b{at}", "dip": str(IPv4Address("10.1.0.1") + number * BACKENDS_EACH + at)}
                for at in range(BACKENDS_EACH)
            ],
        }
        for number in range(SERVICES)
    ]  # fmt: skip
    config = Config.model_validate({"maglev": {"size": 251}, "flows": {"limit": flows}, "services": services})
    mux = MuxTables(Tables.allocate(sizes_for(config, 1)), IPv4Address("10.0.1.2"))
    mux.commit(mux.plan(config))
    _fill(Moment.of_mux(mux))
    return mux


def _fill(moment: Moment) -> None:
    """Half of the flow table's places, each the flow of some backend."""
    places = moment.tables.flows.reshape(-1)[::2]
    rows = list(moment.owners)
    for at, row in enumerate(rows):
        own = places[at :: len(rows)]
        own["target"], own["state"], own["seen"] = row, TRUSTED, now_ticks()


async def _measure(mux: MuxTables, found: dict[str, Any]) -> None:
    def reading() -> Reading:
        return Reading(Moment.of_mux(mux), batches=0, wanted=mux.config.services if mux.config else ())

    async def read() -> Reading:
        return reading()

    def text_s() -> float:
        began = time.thread_time()
        exposition(reading())
        return time.thread_time() - began

    live_flows.warm_up(Moment.of_mux(mux))
    found["flows"] = live_flows.count(Moment.of_mux(mux))
    ready()
    found["cpu"] = await asyncio.to_thread(median, text_s)
    async with MetricsServer("127.0.0.1:0", read) as server:
        found["quiet"] = await _longest_stall(asyncio.create_task(asyncio.sleep(SCRAPES * PAUSE_S)))
        command = [sys.executable, "-c", SCRAPER, f"http://127.0.0.1:{server.port}/metrics"]
        scraper = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        scraping = asyncio.create_task(scraper.communicate())
        found["busy"] = await _longest_stall(scraping)
        found["scrapes"] = json.loads((await scraping)[0])


async def _longest_stall(until: "asyncio.Task[Any]") -> float:
    """Seconds that a tick came late, at worst."""
    longest = 0.0
    while not until.done():
        began = time.perf_counter()
        await asyncio.sleep(TICK_S)
        longest = max(longest, time.perf_counter() - began - TICK_S)
    return longest
