"""The reference of metrics, verdicts and counters as Markdown: ``python -m lbmux.tools.metrics_page``.

It makes docs/metrics.md from the code that counts: the families as Prometheus reads them, the verdicts, the look-ups.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

from lbmux.api.answers import Overload
from lbmux.bgp.bgp_settings import ESTABLISHED
from lbmux.config.models import Config
from lbmux.datapath.tables import LOOKUPS
from lbmux.datapath.verdicts import Verdict
from lbmux.metrics.families import Reading, exposition
from lbmux.metrics.loop_histograms import LoopHistograms
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.agent_tables import sizes_for as agent_sizes
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.regions import Tables
from lbmux.tools.slow_path_counters import MEANINGS

FAMILY = re.compile(r"# HELP (\w+) (.*)\n# TYPE \w+ (\w+)\n(?:\w+\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)="')
KINDS = {"send": "Sent", "pass": "Passed to the kernel's stack, or punted to user space", "drop": "Dropped"}
MUX, DIP = IPv4Address("10.0.1.2"), IPv4Address("10.1.1.2")
CONFIG: dict[str, Any] = {
    "muxes": [str(MUX)],
    "maglev": {"size": 251},
    "flows": {"limit": 1024},
    "services": [{"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": [{"dip": str(DIP)}]}],
}
"""The smallest pool with a line in every family."""
HEAD = """# Metrics and counters

<!-- Generated from the code: python -m lbmux.tools.metrics_page > docs/metrics.md -->

## Metrics

`lbmux mux --metrics [HOST:]PORT` and `lbmux agent --metrics [HOST:]PORT` serve these at `/metrics` for Prometheus.
`prometheus/` has alerts and a scrape configuration, `grafana/` a dashboard. No label holds a client's address. A scrape
walks the flow table in a thread beside the packet loop.
"""
VERDICTS = """
## Verdicts

Every packet ends in one verdict. `lbmux show counters` lists them with packets and bytes; `lbmux trace 'verdict NAME'`
shows packets that end in one.
"""
LOOKUP_HEAD = """
## Look-ups in the flow table

`lookups` in `lbmux show counters`, and `lbmux_lookups_total` by `result`.
"""
SLOW_PATH = """
## Slow path

`slowpath` in `lbmux show counters`: what user space did with punted packets.
"""


def main() -> None:
    print(page(), end="")


def page() -> str:
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield HEAD
    yield from _table(("metric", "type", "labels", "by", "meaning"), _families())
    yield VERDICTS.rstrip("\n")
    for kind, title in KINDS.items():
        yield f"\n### {title}\n"
        rows = ((f"`{verdict.label}`", verdict.meaning) for verdict in Verdict if verdict.kind == kind)
        yield from _table(("verdict", "meaning"), rows)
    yield LOOKUP_HEAD
    yield from _table(("counter", "meaning"), ((f"`{name}`", meaning) for name, meaning in LOOKUPS.items()))
    for program, meanings in MEANINGS.items():
        yield SLOW_PATH if program == "mux" else ""
        yield f"### {program.capitalize()}\n"
        yield from _table(("counter", "meaning"), ((f"`{name}`", meaning) for name, meaning in meanings.items()))


def _table(titles: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(titles) + " |"
    yield "| " + " | ".join("---" for _ in titles) + " |"
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def _families() -> Iterator[tuple[str, ...]]:
    """Each family's name, type, labels, the daemons that have it, and its meaning."""
    by_daemon = {daemon: _of(reading) for daemon, reading in _readings().items()}
    for name in dict.fromkeys(name for families in by_daemon.values() for name in families):
        daemons = [daemon for daemon, families in by_daemon.items() if name in families]
        meaning, kind, labels = by_daemon[daemons[0]][name]
        yield f"`{name}`", kind, labels, ", ".join(daemons), meaning


def _of(reading: Reading) -> dict[str, tuple[str, str, str]]:
    """Return by name: the help, the type, the labels of its first line (a histogram's `le` is part of its type)."""
    return {
        name: (text, kind, ", ".join(f"`{label}`" for label in LABEL.findall(labels) if label != "le"))
        for name, text, kind, labels in FAMILY.findall(exposition(reading).decode())
    }


def _readings() -> dict[str, Reading]:
    config = Config.model_validate(CONFIG)
    mux = MuxTables(Tables.allocate(sizes_for(config)), MUX)
    mux.commit(mux.plan(config))
    agent = AgentTables(Tables.allocate(agent_sizes(config)), [DIP], [], "nat")
    agent.commit(agent.plan(config))
    peers = {"10.0.1.1": (ESTABLISHED, "")}
    return {
        "mux": Reading(
            Snapshot.of_mux(mux), loop_histograms=LoopHistograms(), peers=peers, overload=Overload(None, "", 0)
        ),
        "agent": Reading(Snapshot.of_agent(agent)),
    }


if __name__ == "__main__":
    main()
