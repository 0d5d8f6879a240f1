"""The data path in memory: nanoseconds per packet by the number of flows, and bytes per flow."""

import time

from bench.frames import Frames, config, tables
from bench.report import Result, median
from lbmux.config.models import Config
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks

FLOWS = {100: "", 1000: "< 40", 100_000: "", 1_000_000: "< 150"}
STEADY_FLOWS = {1000: "", 1_000_000: "", 10_000_000: "<= 2"}
"""Numbers of flows in steady slots, of which none has an entry. The goal is a ratio to the first."""
PACKETS = 2_000_000
WARM_ROUNDS, USUAL_FLOWS = 6, 1000


WAYS: dict[str, tuple[int, dict[str, object]]] = {
    "IPv6 in IPv6": (6, {}),
    "IPv6 in IPv4": (6, {"outer": 4}),
    "IPv4 in IPv6": (4, {"outer": 6}),
    **{f"IPv4 by {kind}": (4, {"tunnel": kind}) for kind in ("gue1", "gue0", "gre", "geneve", "direct")},
    "IPv4, 1000 prefixes denied": (4, {"deny": [f"10.{n // 250}.{n % 250}.0/24" for n in range(1000)]}),
}
"""Other cases than IPv4 in IPv4, with 1000 flows: (IP version, the service's keys)."""


def run() -> list[Result]:
    results, reference, usual = [], 0.0, 0.0
    for flows, goal in FLOWS.items():
        value, hits = measured(config(), flows)
        reference = reference or value
        usual = value if flows == USUAL_FLOWS else usual
        results.append(
            Result("memory", f"{flows:,} flows, 64 bytes", value, "ns a packet", "100 flows", value / reference, goal,
                   f"{hits:.1%} of look-ups hit")
        )  # fmt: skip
    steady = 0.0
    for flows, goal in STEADY_FLOWS.items():
        value, _ = measured(config(flows="changed"), flows)
        steady = steady or value
        name = f"{flows:,} flows, 64 bytes, flows: changed"
        results.append(Result("memory", name, value, "ns a packet", "1000 flows", value / steady, goal))
    for name, (version, more) in WAYS.items():
        value, _ = measured(config(version=version, **more), USUAL_FLOWS, version)  # type: ignore[arg-type]
        results.append(Result("memory", name, value, "ns a packet", "IPv4 in IPv4", value / usual))
    table = tables(config()).flows
    results.append(
        Result("memory", "flow table for 1,048,576 flows", table.nbytes / 2**20, "MiB", goal="<= 64",
               note=f"{table.nbytes / 2**20 * 2**20 / (1 << 20):.0f} bytes a flow")
    )  # fmt: skip
    return results


def measured(configuration: Config, flows: int, version: int = 4) -> tuple[float, float]:
    """Return (nanoseconds per packet, share of look-ups that hit)."""
    memory = tables(configuration)
    frames, worker = Frames(flows, version=version), Worker(memory)

    def once() -> float:
        frames.reset()
        start = time.perf_counter_ns()
        worker.forward(frames.batch, now_ticks())
        return (time.perf_counter_ns() - start) / frames.count

    def several() -> float:
        rounds = max(3, PACKETS // flows // 10)
        return sorted(once() for _ in range(rounds))[rounds // 2]

    for _ in range(WARM_ROUNDS):
        once()
    memory.lookups[:] = 0
    value = median(several)
    assert (frames.batch.verdict == 0).all(), "not every frame was forwarded"
    return value, int(memory.lookups[0][0]) / max(1, int(memory.lookups[0].sum()))
