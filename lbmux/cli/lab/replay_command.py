"""`lbmux replay`: sends a capture through the data path of a mux, or to an interface."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbmux.addresses import Address
from lbmux.cli import options
from lbmux.plurals import noun

if TYPE_CHECKING:
    from lbmux.tools.looped_capture import LoopedCapture
    from lbmux.tools.replay import Count, Result
    from lbmux.tools.transmit import Sent

OWN = ("10.0.0.1", "fd00::1")
SOURCE_MAC, DESTINATION_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
REPORT_EVERY_BYTES = 1 << 22
"""Progress is reported after this much of the capture."""


class MacType(click.ParamType[int]):
    name = "mac"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from lbmux.addresses import mac_to_int

        try:
            return value if isinstance(value, int) else mac_to_int(value)
        except ValueError:
            self.fail(f"{value!r} is not a MAC address", param, ctx)


@click.command(name="replay")
@click.argument("capture", metavar="IN", type=options.PATH)
@click.option(
    "-c", "--config", type=options.PATH, envvar="LBMUX_CONFIG", show_envvar=True,
    help="Configuration file; needed without --to.",
)  # fmt: skip
@click.option(
    "-w", "--write", metavar="OUT", type=options.PATH, help="Write the frames that a mux would send, as pcap."
)
@click.option("--loop", type=click.IntRange(min=1), default=1, show_default=True, help="Number of passes.")
@click.option("--to", "interface", metavar="INTERFACE", help="Send the frames to this interface instead.  Needs root.")
@click.option("--pps", type=click.IntRange(min=1), help="Packets per second with --to. [default: the recorded times]")
@click.option(
    "--address",
    "addresses",
    type=options.ADDRESS,
    multiple=True,
    help="Source address of outer headers, one per family. [default: 10.0.0.1 and fd00::1]",
)
@click.option(
    "--source-mac", type=MacType(), metavar="MAC", help=f"Source MAC address of sent frames. [default: {SOURCE_MAC}]"
)
@click.option(
    "--destination-mac",
    type=MacType(),
    metavar="MAC",
    help=f"Their destination MAC address. [default: {DESTINATION_MAC}]",
)
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    capture: Path, config: Path | None, write: Path | None, loop: int, interface: str | None, pps: int | None,
    addresses: tuple[Address, ...], source_mac: int | None, destination_mac: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Send the capture IN (- is standard input) through the data path of a mux.

    IN is a pcap or pcapng file, plain or compressed with gzip or zstd.  Its link type is Ethernet, raw IP, Linux cooked
    (tcpdump -i any), loopback or PPP; packets of other link types in a pcapng file are skipped and counted.

    The output counts packets by verdict and by backend.  A damaged capture is read up to the damage; the exit code is
    then 1.

    With --to, frames are sent to an interface unchanged, except that frames without an Ethernet header get one with the
    MAC addresses of the options.  If a MAC option is given, all frames get these addresses.
    """
    _check(capture, config, write, loop, interface, pps)
    from lbmux.tools.looped_capture import LoopedCapture

    macs = (_mac(source_mac, SOURCE_MAC), _mac(destination_mac, DESTINATION_MAC))
    result: Result | Sent
    with LoopedCapture(capture, loop) as looped:
        if interface:
            every = source_mac is not None or destination_mac is not None
            result = _onto_wire(looped, interface, pps, macs, every)
        else:
            assert config is not None
            result = _through_mux(looped, config, write, addresses, macs)
    to_stderr = str(write) == "-"
    if as_json:
        click.echo(json.dumps(_as_json(capture, result), indent=1), err=to_stderr)
    else:
        _print(capture, result, to_stderr)
    if result.damage:
        raise result.damage


def _check(
    capture: Path, config: Path | None, write: Path | None, loop: int, interface: str | None, pps: int | None
) -> None:
    """Raise UsageError for options that exclude each other."""
    if interface is None and config is None:
        raise click.UsageError("needs a configuration: -c FILE, or --to INTERFACE")
    if interface is not None and write is not None:
        raise click.UsageError("-w and --to exclude each other")
    if interface is None and pps is not None:
        raise click.UsageError("--pps needs --to")
    if str(capture) == "-" and loop > 1:
        raise click.UsageError("--loop cannot read standard input twice")
    if write is not None and write.exists() and capture.exists() and os.path.samefile(write, capture):
        raise click.UsageError(f"{write} is both input and output")


def _mac(given: int | None, default: str) -> int:
    from lbmux.addresses import mac_to_int

    return mac_to_int(default) if given is None else given


def _through_mux(
    looped: "LoopedCapture", config: Path, write: Path | None, addresses: tuple[Address, ...], macs: tuple[int, int]
) -> "Result":
    from lbmux.config.loader import load
    from lbmux.frames.pcap import PcapWriter
    from lbmux.linux.next_hops import NextHop
    from lbmux.tables.mux_tables import ETHERNET_MTU
    from lbmux.tools.replay import ReplayMux, replay

    mux = ReplayMux(load(config), (*addresses, *map(ip_address, OWN)), NextHop(0, *macs, ETHERNET_MTU))
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(PcapWriter(write, looped.raw, looped.nanoseconds)) if write else None
        update = stack.enter_context(_progress(looped))
        return replay(looped, mux, writer, update)


def _onto_wire(looped: "LoopedCapture", interface: str, pps: int | None, macs: tuple[int, int], every: bool) -> "Sent":
    from lbmux.tools.transmit import Macs, Wire, put_on_wire

    with Wire(interface, Macs(*macs, every)) as wire, _progress(looped) as update:
        return put_on_wire(looped, wire, pps, update)


@contextlib.contextmanager
def _progress(looped: "LoopedCapture") -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar if standard error is a terminal; yield the function that updates it, or None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, shown = bar.add_task("", total=looped.size_bytes), 0

        def update(offset: int) -> None:
            nonlocal shown
            if offset - shown >= REPORT_EVERY_BYTES:
                shown = offset
                bar.update(task, completed=offset)

        yield update


def _as_json(capture: Path, result: "Result | Sent") -> dict[str, Any]:
    from dataclasses import asdict, replace

    document: dict[str, Any] = {"version": 1, "capture": str(capture), **asdict(replace(result, damage=None))}
    document["packets_per_second"] = round(result.packets_per_second)
    damage = result.damage
    document["damage"] = {"offset": damage.offset, "reason": damage.reason} if damage else None
    return document


def _print(capture: Path, result: "Result | Sent", to_stderr: bool) -> None:
    from rich.console import Console

    from lbmux.frames.links import KNOWN_LINKS
    from lbmux.tools.replay import Result

    console = Console(stderr=to_stderr, highlight=False)
    if isinstance(result, Result):
        _print_counts(console, "verdict", result.verdicts, result.packets)
        _print_counts(console, "backend", result.backends, sum(each.packets for each in result.backends.values()))
        more = "" if result.written is None else f"; {result.written:,} written"
    else:
        unsent = result.packets - result.sent
        more = f"; {unsent:,} not accepted by the interface" if unsent else ""
    for link, packets in sorted(result.skipped.items()):
        more += f"; {packets:,} skipped (link type {link} is not {KNOWN_LINKS})"
    speed = f"{result.packets_per_second:,.0f} packets per second"
    count = f"{result.packets:,} {noun(result.packets, 'packet')}"
    console.print(f"{capture}: {count} in {result.seconds:.3f} s: {speed}{more}", soft_wrap=True)


def _print_counts(console: Any, what: str, counts: "dict[str, Count]", total: int) -> None:
    from rich.table import Table

    table = Table(what, "packets", "share", "bytes")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, count in counts.items():
        share = f"{count.packets / total:.1%}" if total else ""
        table.add_row(name, f"{count.packets:,}", share, f"{count.bytes:,}")
    console.print(table)
