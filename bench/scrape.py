"""The cost of a metrics scrape with 1000 services and 10,000 backends, and the packet delay that it causes.

A whole mux runs with a flow table filled by packets. While it is scraped, one packet at a time makes a round trip, a
thousand per second. The longest delay is compared with that of as many packets without a scrape.
"""

import statistics
import subprocess
import time
import urllib.request
from ipaddress import IPv4Address
from json import loads

from bench.health import cpu_s
from bench.latency import PPS
from bench.live import Bed
from bench.report import REPETITIONS, Result
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import CountFlows
from lbmux.lab.processes import python

SERVICES, BACKENDS_EACH, FLOWS = 1000, 10, (131_072, 1_048_576)
SCRAPES, SAMPLES, PAUSE_S = 15, 3000, 0.2
FILL_PPS = 100_000
METRICS = "9464"
NEVER_IDLE = {"untrusted_s": 86400, "tcp_s": 86400, "fin_s": 86400}


def run() -> list[Result]:
    with Bed() as bed:
        return [result for flows in FLOWS for result in _results(bed, flows)]


def _results(bed: Bed, flows: int) -> list[Result]:
    bed.lab.write_config(_config(flows))
    bed.start_mux("packet", "--metrics", METRICS)
    bed.generate(2 * flows / FILL_PPS + 0.5, flows, FILL_PPS)
    have = ControlClient(bed.lab.directory / "mux.sock").ask(CountFlows()).flows
    _scrape(bed)  # the first scrape imports modules; measure the later ones, as in a running mux
    cpu = cpu_s(bed.process.pid)
    times, texts = zip(*(_scrape(bed) for _ in range(SCRAPES)), strict=True)
    cpu = (cpu_s(bed.process.pid) - cpu) / SCRAPES
    waits = [(_longest_wait(bed, False), _longest_wait(bed, True)) for _ in range(REPETITIONS)]
    quiet, busy = (statistics.median(column) for column in zip(*waits, strict=True))
    what = f"{SERVICES} services, {SERVICES * BACKENDS_EACH} backends, {have} flows"
    lines, megabytes = len(texts[0].splitlines()), len(texts[0]) / 1e6
    size = f"{lines} lines, {megabytes:.1f} MB, longest of {SCRAPES}: {max(times):.0f} ms"
    name = f"longest wait in {SAMPLES} packets"
    return [
        Result("scrape", f"scrape of {what}", statistics.median(times), "ms", goal="<= 200", note=size),
        Result("scrape", "its CPU time in the mux", cpu * 1000, "ms"),
        Result("scrape", f"{name}, no scrape", quiet, "ms"),
        Result("scrape", f"{name}, a scrape every {PAUSE_S} s", busy, "ms", "no scrape", busy / quiet, "<= 5"),
    ]


def _config(flows: int) -> dict[str, object]:
    services = [
        {
            "name": f"service{number}", "vip": str(IPv4Address("192.0.2.0") + number), "protocol": "tcp", "port": 80,
            "idle": NEVER_IDLE, "flows": "all",
            "backends": [
                {"name": f"b{at}", "dip": str(IPv4Address("10.1.0.1") + number * BACKENDS_EACH + at)}
                for at in range(BACKENDS_EACH)
            ],
        }
        for number in range(SERVICES)
    ]  # fmt: skip
    return {"maglev": {"size": 251}, "flows": {"limit": 2 * flows}, "services": services}


def _scrape(bed: Bed) -> tuple[float, bytes]:
    """Return (milliseconds, the text)."""

    def fetched() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=30) as answer:
            text: bytes = answer.read()
            return text

    began = time.perf_counter()
    text = bed.lab.inside("mux", fetched)
    return (time.perf_counter() - began) * 1000, text


def _longest_wait(bed: Bed, scraping: bool) -> float:
    """Return the longest round-trip time in milliseconds."""
    command = python("bench.ping", "a0", "--samples", str(SAMPLES), "--pps", str(PPS))
    with bed.lab.popen("generator", command, stdout=subprocess.PIPE, text=True) as ping:
        while ping.poll() is None:
            time.sleep(PAUSE_S)
            if scraping and ping.poll() is None:
                _scrape(bed)
        assert ping.stdout is not None
        return float(loads(ping.stdout.read())["longest_us"]) / 1000
