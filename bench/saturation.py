"""A mux in user space under a flood: does its control socket answer, and does its BGP session stay?

Two processes send all kinds of packets to a VIP from the client as fast as they can. Meanwhile this program requests
the mux's counters and reads the router's routes to the VIP, over and over.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from itertools import islice

from bench.live import LAB
from bench.report import Result
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetCounters, GetRuntime
from lbmux.lab.lab import Lab
from lbmux.lab.processes import python
from lbmux.lab.scoreboard.flood import KINDS, send
from lbmux.lab.systems.common_nodes import SPEAKER
from lbmux.lab.topology import ECHO_PORT, VIP, ananta_bgp

SENDERS, PACKETS, SECONDS, PAUSE_S = 2, 200_000, 8.0, 0.01
KINDS_SENT = ("flood-syn", "flood-vip")


def run() -> list[Result]:
    lab = Lab(ananta_bgp(*SPEAKER, mux_count=1), LAB, "packet")
    lab.up()
    try:
        _wait_for_route(lab)
        return [result for kind in KINDS_SENT for result in _flooded(lab, kind)]
    finally:
        lab.down()


def _flooded(lab: Lab, kind: str) -> list[Result]:
    client = ControlClient(lab.directory / "mux1.sock")
    calm_ms = [_asked_ms(client) for _ in range(100)]
    before, overloads = _received(lab), client.ask(GetRuntime()).overload
    senders = [lab.popen("client", python("bench.saturation", kind)) for _ in range(SENDERS)]
    times_ms, missing, begun = list[float](), 0, time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        routes = pool.submit(_routes, lab, SECONDS)
        while any(sender.poll() is None for sender in senders) and time.monotonic() - begun < SECONDS + 30:
            times_ms.append(_asked_ms(client))
            time.sleep(PAUSE_S)
        missing = routes.result()
    seconds = time.monotonic() - begun
    after, noticed = client.ask(GetCounters()), client.ask(GetRuntime()).overload
    dropped = (after.ring or {}).get("dropped", 0)
    assert overloads is not None and noticed is not None
    name = f"{kind}: "
    return [
        Result("saturation", name + "frames that reached the mux", (_received(lab) - before) / seconds, "a second",
               note=f"{dropped:,} dropped at the ring, overloads noticed: {noticed.times - overloads.times}"),
        Result("saturation", name + "control socket, median", statistics.median(times_ms), "ms", "calm",
               statistics.median(times_ms) / statistics.median(calm_ms)),
        Result("saturation", name + "control socket, 99th percentile", _p99(times_ms), "ms", goal="100 ms",
               note=f"{len(times_ms)} requests, longest {max(times_ms):.0f} ms"),
        Result("saturation", name + "readings without a route to the VIP", missing, "readings", goal="0"),
    ]  # fmt: skip


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def _asked_ms(client: ControlClient) -> float:
    begun = time.perf_counter()
    client.ask(GetCounters())
    return 1000 * (time.perf_counter() - begun)


def _received(lab: Lab) -> int:
    return sum(line.packets for line in ControlClient(lab.directory / "mux1.sock").ask(GetCounters()).verdicts)


def _has_route(lab: Lab) -> bool:
    shown = lab.run("router", ["ip", "route", "show", f"{VIP}/32"], capture_output=True)
    return bool(shown.stdout)


def _routes(lab: Lab, seconds: float) -> int:
    """Read the routes for ``seconds``. Return the number of readings without a route."""
    end, missing = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        missing += not _has_route(lab)
        time.sleep(0.1)
    return missing


def _wait_for_route(lab: Lab) -> None:
    deadline = time.monotonic() + 20
    while not _has_route(lab):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no route to {VIP}")
        time.sleep(0.1)


def main(kind: str) -> None:
    """Send as fast as this process can, from a node of the lab."""
    packets, end = list(islice(KINDS[kind](ip_address(VIP), ECHO_PORT), PACKETS // 10)), time.monotonic() + SECONDS
    while time.monotonic() < end:
        send(packets, VIP, 0.0)


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
