"""CPU time to load a large configuration, from the YAML and from its snapshot, and to plan and commit its tables."""

import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from bench.report import Result, median
from lbmux.config.loader import load, parse
from lbmux.config.models import Config
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.targets.regions import Tables

SERVICES, BACKENDS = 1024, 10
OWN = IPv4Address("10.0.0.1")


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "services.yaml")
        file.write_text("\n".join(_lines()))
        text = file.read_bytes()
        from_yaml = median(lambda: cpu_s(lambda: parse(text, file)))
        config = load(file)
        from_snapshot = median(lambda: cpu_s(lambda: load(file)))
    pooled = "\n".join(_pooled_lines()).encode()
    pool_from_yaml = median(lambda: cpu_s(lambda: parse(pooled, file)))
    mux, planned = _planned(config)
    by_pool = _planned(parse(pooled, file))[1]
    automatic = _planned(parse(b"maglev: {size: auto}\n" + text, file))[1]
    plan = mux.plan(config)
    everything = cpu_s(lambda: mux.commit(plan))
    changes = [_weight_changed(mux, config, weight) for weight in range(2, 7)]
    one_planned, one_committed = (1000 * sorted(times)[2] for times in zip(*changes, strict=True))
    name = f"{SERVICES:,} services x {BACKENDS} backends"
    return [
        Result("loading", f"{name}: from the YAML", from_yaml, "s of CPU time", goal="< 10"),
        Result("loading", f"{name}: from the snapshot", from_snapshot, "s of CPU time", "from the YAML",
               from_snapshot / from_yaml, "< 5"),
        Result("loading", f"{name}, one named pool: from the YAML", pool_from_yaml, "s of CPU time", "from the YAML",
               pool_from_yaml / from_yaml),
        Result("loading", f"{name}: tables planned", planned, "s of CPU time"),
        Result("loading", f"{name}, one named pool: tables planned", by_pool, "s of CPU time", "tables planned",
               by_pool / planned),
        Result("loading", f"{name}: tables planned with maglev.size: auto", automatic, "s of CPU time",
               "tables planned", automatic / planned),
        Result("loading", f"{name}: tables committed", 1000 * everything, "ms of CPU time", goal="< 2"),
        Result("loading", f"{name}: one weight planned", one_planned, "ms of CPU time", goal="< 50"),
        Result("loading", f"{name}: one weight committed", one_committed, "ms of CPU time", goal="< 2"),
    ]  # fmt: skip


def _planned(config: Config) -> tuple[MuxTables, float]:
    """Return empty tables for a configuration, and the seconds of CPU time in which it is planned for them."""
    mux = MuxTables(Tables.allocate(sizes_for(config)), OWN)
    return mux, median(lambda: cpu_s(lambda: mux.plan(config)))


def _weight_changed(mux: MuxTables, config: Config, weight: int) -> tuple[float, float]:
    """Give the first backend another weight.  Return the seconds of CPU time of plan and commit."""
    first, *others = config.services
    backends = (first.backends[0].model_copy(update={"weight": weight}), *first.backends[1:])
    changed = config.model_copy(update={"services": (first.model_copy(update={"backends": backends}), *others)})
    start = time.process_time()
    plan = mux.plan(changed)
    planned = time.process_time()
    mux.commit(plan)
    return planned - start, time.process_time() - planned


def cpu_s(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _lines() -> Iterator[str]:
    yield "services:"
    for service in range(SERVICES):
        yield _service(service)
        yield "    backends:"
        first = IPv4Address("10.1.0.0") + service * BACKENDS
        yield from (f"      - {{dip: {first + backend}, port: 8080}}" for backend in range(BACKENDS))
    yield ""


def _pooled_lines() -> Iterator[str]:
    yield "pools:\n  front:"
    yield from (f"    - {{dip: {IPv4Address('10.1.0.0') + backend}, port: 8080}}" for backend in range(BACKENDS))
    yield "services:"
    yield from (f"{_service(service)}\n    pool: front" for service in range(SERVICES))
    yield ""


def _service(number: int) -> str:
    return f"  - name: s{number}\n    vip: {IPv4Address('192.0.2.0') + number}\n    protocol: tcp\n    port: 80"
