"""How soon a flooded tenant is isolated: figure 12 of the Ananta paper (SIGCOMM 2013), on one mux.

Five tenants, each with a VIP. One is flooded with SYNs of spoofed sources at ten times the mux's ``capacity_pps``,
while all five get no, moderate or heavy base load of established flows. In the paper the flooded VIP is isolated after
20 s at best, and always within 120 s.

    python -m bench.isolation [--driver packet|xdp] [--csv FILE]

writes a line for each run, and a plot beside it.
"""

import argparse
import contextlib
import csv
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from itertools import cycle, islice
from pathlib import Path

from bench.live import LAB, OURS, PEER, topology
from bench.repeating import repeating
from bench.report import Result
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetRuntime, Parole
from lbmux.errors import LbmuxError
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import set_route
from lbmux.lab.scoreboard.flood import send, syns
from lbmux.lab.topology import Program, Route
from lbmux.wire.numbers import ACK, SYN, TCP_PROTOCOL
from lbmux.wire.packet import tcp_header, transport_packet

TENANTS = tuple(f"192.0.2.{10 + number}" for number in range(5))
PORT, CAPACITY_PPS, FLOOD_PPS = 80, 1000, 10_000
LOADS = {"none": 0.0, "moderate": 0.4, "heavy": 0.8}
"""Base load as a share of the capacity."""
CLIENTS, TURN_S = 40, 0.2
"""Flows of each tenant's base load, each from an address of its own; senders look up this often whether to stop."""
RUNS, PATIENCE_S, CALM_S = 3, 30.0, 1.5


@dataclass(frozen=True)
class Run:
    """One run: when the flooded VIP was isolated, from the flood's begin, and back, from its end; in seconds."""

    driver: str
    load: str
    isolated_s: float
    back_s: float


def run() -> list[Result]:
    runs = [one for driver in ("packet", "xdp") for one in measure(driver)]
    return [result for driver in ("packet", "xdp") for load in LOADS for result in _results(runs, driver, load)]


def _results(runs: Sequence[Run], driver: str, load: str) -> list[Result]:
    mine = [one for one in runs if (one.driver, one.load) == (driver, load)]
    isolated, back = [one.isolated_s for one in mine], [one.back_s for one in mine]
    name = f"{driver}, base load {load}: "
    return [
        Result("isolation", name + "until the flooded VIP is isolated", statistics.median(isolated), "s", goal="2 s",
               note=f"{min(isolated):.2f} to {max(isolated):.2f}; Ananta: 20 to 120"),
        Result("isolation", name + "until it is back after the flood", statistics.median(back), "s", goal="1 s",
               note=f"{min(back):.2f} to {max(back):.2f}"),
    ]  # fmt: skip


def measure(driver: str, runs: int = RUNS) -> list[Run]:
    lab = Lab(_topology(), LAB, driver)
    lab.up(programs=False)
    try:
        lab.inside("mux", lambda: set_route(Route("10.1.0.0/16", (PEER,))))
        for vip in TENANTS:
            lab.inside("generator", lambda: set_route(Route(f"{vip}/32", (OURS,))))  # noqa: B023 -- called at once
        options = ("--detach-on-exit", "--xdp-mode", "native") if driver == "xdp" else ()
        arguments = ("mux", "-c", "{config}", "-i", "b0", "--driver", driver, *options)
        program = Program("mux", "lbmux.cli.main", (*arguments, "--control", "{state}/mux.sock"))
        lab.start(lab.topology.node("mux"), program)
        return [_one(lab, driver, load) for load in LOADS for _ in range(runs)]
    finally:
        lab.down()


def _topology():  # type: ignore[no-untyped-def]
    bed = topology(takes_xdp=True)
    (web,) = bed.config["services"]
    services = [web | {"name": f"tenant{number}", "vip": vip} for number, vip in enumerate(TENANTS)]
    return replace(bed, config={"services": services, "capacity_pps": CAPACITY_PPS})


def _one(lab: Lab, driver: str, load: str) -> Run:
    client = ControlClient(lab.directory / "mux.sock")
    base = [_flows(vip) for vip in TENANTS]
    each_pps = LOADS[load] * CAPACITY_PPS / len(TENANTS)
    with contextlib.ExitStack() as stack:
        for packets in base if each_pps else ():
            stack.enter_context(_sending(lab, packets, each_pps))
        time.sleep(CALM_S)
        begun = time.monotonic()
        with _sending(lab, syns(ip_address(TENANTS[0]), PORT), FLOOD_PPS):
            isolated_s = _wait(client, True) - begun
            time.sleep(CALM_S)
        ended = time.monotonic()
        back_s = _wait(client, False) - ended
    with contextlib.suppress(LbmuxError):  # each run is the VIP's first flood
        client.ask(Parole(TENANTS[0]))
    return Run(driver, load, round(isolated_s, 3), round(back_s, 3))


def _flows(vip: str) -> Iterator[bytes]:
    """Packets of real-looking clients of a tenant, without end: each flow begins once."""
    to, begun = ip_address(vip), False
    for number in cycle(range(CLIENTS)):
        source, port = ip_address(f"203.0.113.{1 + number}"), 40000 + number
        yield transport_packet(
            source, to, TCP_PROTOCOL, tcp_header(port, PORT, ACK if begun else SYN, 1, 1, window=1024)
        )
        begun = begun or number == CLIENTS - 1


@contextlib.contextmanager
def _sending(lab: Lab, packets: Iterator[bytes], per_s: float) -> Iterator[None]:
    """Send packets to their VIP at a rate within the context."""

    def send_some() -> None:
        some = list(islice(packets, max(round(per_s * TURN_S), 1)))
        lab.inside("generator", lambda: send(some, TENANTS[0], len(some) / per_s))

    with repeating(send_some):
        yield


def _wait(client: ControlClient, isolated: bool) -> float:
    """Wait until the flooded VIP is a black hole, or is none; return the monotonic time."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        overload, now = client.ask(GetRuntime()).overload, time.monotonic()
        assert overload is not None
        if (TENANTS[0] in overload.black_holes) == isolated:
            return now
        if now > deadline:
            raise TimeoutError(f"{TENANTS[0]}: black hole is not {isolated} after {PATIENCE_S:.0f} s")
        time.sleep(0.02)


def write_csv(path: Path, runs: Sequence[Run]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*asdict(runs[0])])
        writer.writeheader()
        writer.writerows(asdict(one) for one in runs)


def draw(path: Path, runs: Sequence[Run]) -> None:
    """Plot each run's time to isolation by base load, and the medians as bars.  Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for number, load in enumerate(LOADS):
        values = [one.isolated_s for one in runs if one.load == load]
        axes.bar(number, statistics.median(values), width=0.5, color="0.8")
        axes.plot([number] * len(values), values, "o", color="0.2")
    axes.set_xticks(range(len(LOADS)), [f"{load}\n({share:.0%} of the capacity)" for load, share in LOADS.items()])
    axes.set_xlabel("base load")
    axes.set_ylabel("time to isolation, s")
    axes.set_ylim(bottom=0)
    axes.set_title(f"One of five tenants flooded, driver {runs[0].driver}")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--driver", choices=("packet", "xdp"), default="packet")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each base load")
    parser.add_argument("--csv", type=Path, default=Path("isolation.csv"))
    given = parser.parse_args()
    runs = measure(given.driver, given.runs)
    write_csv(given.csv, runs)
    print(given.csv.read_text(), end="")
    try:
        draw(given.csv.with_suffix(".png"), runs)
    except ImportError:
        print("no plot: pip install 'lbmux[plots]'")


if __name__ == "__main__":
    main()
