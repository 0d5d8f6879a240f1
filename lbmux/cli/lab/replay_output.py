"""The results of `lbmux replay`, as tables for people and as JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbmux.plurals import noun

if TYPE_CHECKING:
    from lbmux.tools.replay.replay import Count, Result
    from lbmux.tools.replay.transmit import Sent


def as_json(capture: Path, result: "Result | Sent") -> dict[str, Any]:
    document: dict[str, Any] = {"version": 1, "capture": str(capture), **asdict(replace(result, damage=None))}
    document["packets_per_second"] = round(result.packets_per_second)
    damage = result.damage
    document["damage"] = {"offset": damage.offset, "reason": damage.reason} if damage else None
    return document


def print_tables(capture: Path, result: "Result | Sent", to_stderr: bool) -> None:
    from rich.console import Console

    from lbmux.frames.links import KNOWN_LINKS
    from lbmux.tools.replay.replay import Result

    console = Console(stderr=to_stderr, highlight=False)
    if isinstance(result, Result):
        _print_counts(console, "verdict", result.verdicts, result.packets)
        _print_counts(console, "backend", result.backends, sum(each.packets for each in result.backends.values()))
        _print_lookups(console, result.lookups)
        _print_pool(console, result)
        more = "" if result.written is None else f"; {result.written:,} written"
        more += (
            ""
            if result.mapped is None
            else f"; {result.mapped:,} {noun(result.mapped, 'packet')} with another destination"
        )
    else:
        unsent = result.packets - result.sent
        more = f"; {unsent:,} not accepted by the interface" if unsent else ""
    for link, packets in sorted(result.skipped.items()):
        more += f"; {packets:,} skipped (link type {link} is not {KNOWN_LINKS})"
    speed = f"{result.packets_per_second:,.0f} packets per second"
    count = f"{result.packets:,} {noun(result.packets, 'packet')}"
    console.print(f"{capture}: {count} in {result.seconds:.3f} s: {speed}{more}", soft_wrap=True)


def _print_lookups(console: Any, lookups: dict[str, int]) -> None:
    from lbmux.datapath.tables import LOOKUPS

    rows = [(name, f"{count:,}", LOOKUPS[name]) for name, count in lookups.items() if count]
    _print_rows(console, ("look-up", "packets", "meaning"), rows, right=1)


def _print_pool(console: Any, result: "Result") -> None:
    """Print what only a pool of muxes has: the share of each mux, the changes, the flows."""
    if len(result.muxes) > 1:
        _print_counts(console, "mux", result.muxes, result.packets)
    rows = [
        (each.change, f"{each.at_s:g} s", *(f"{number:,}" for number in asdict(each.effect).values()))
        for each in result.changes
    ]
    if rows:
        _print_rows(console, ("change", "at", "continued", "broken", "lost", "draining"), rows, right=5)
    if result.flows is not None:
        flows = result.flows
        console.print(f"{flows.all:,} {noun(flows.all, 'flow')} to VIPs: {flows.broken:,} broken, {flows.lost:,} lost")


def _print_rows(console: Any, names: Sequence[str], rows: Sequence[Sequence[str]], right: int) -> None:
    """Print a table. ``right``: how many columns after the first are aligned to the right."""
    from rich.table import Table

    table = Table(*names)
    for column in table.columns[1 : right + 1]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _print_counts(console: Any, what: str, counts: "dict[str, Count]", total: int) -> None:
    rows = [
        (name, f"{count.packets:,}", f"{count.packets / total:.1%}" if total else "", f"{count.bytes:,}")
        for name, count in counts.items()
    ]
    _print_rows(console, (what, "packets", "share", "bytes"), rows, right=3)
