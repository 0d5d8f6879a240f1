"""The longest delay of packets while the mux reloads 1000 backends, at 1000 packets per second."""

import copy
import json
import subprocess
import time

from bench.latency import PPS, SAMPLES
from bench.live import Bed, topology
from bench.report import Result
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import Reload
from lbmux.lab.processes import python

BACKENDS = 1000
PAUSE_S = 0.1


def run() -> list[Result]:
    with Bed() as bed:
        bed.lab.write_config(_config(BACKENDS))
        bed.start_mux()
        quiet, _ = _measure(bed, reload=False)
        busy, reloads = _measure(bed, reload=True)
    name = f"longest wait in {SAMPLES} packets"
    return [
        Result("reload", f"{name}, no reload", quiet["longest_us"] / 1000, "ms"),
        Result("reload", f"{name}, {reloads} reloads of {BACKENDS} backends", busy["longest_us"] / 1000, "ms",
               "no reload", busy["longest_us"] / quiet["longest_us"], "<= 5", f"{busy['lost']:.0f} lost"),
    ]  # fmt: skip


def _config(backends: int) -> dict[str, object]:
    config = copy.deepcopy(topology().config)
    dips = [{"name": f"b{n}", "dip": f"10.1.{n // 250}.{n % 250 + 1}"} for n in range(backends)]
    config["services"][0]["backends"] = dips
    return config


def _measure(bed: Bed, reload: bool) -> tuple[dict[str, float], int]:
    """Return round-trip times, and the number of reloads that added or removed the last backend meanwhile."""
    command = python("bench.ping", "a0", "--samples", str(SAMPLES), "--pps", str(PPS))
    reloads = 0
    with bed.lab.popen("generator", command, stdout=subprocess.PIPE, text=True) as ping:
        while ping.poll() is None:
            time.sleep(PAUSE_S)
            if reload and ping.poll() is None:
                bed.lab.write_config(_config(BACKENDS - reloads % 2))
                ControlClient(bed.lab.directory / "mux.sock").ask(Reload())
                reloads += 1
        assert ping.stdout is not None
        return json.loads(ping.stdout.read()), reloads
