"""`lbmux replay`: sends a capture through the data path of a mux, or to an interface."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from lbmux.cli import options
from lbmux.cli.capture_progress import progress
from lbmux.cli.lab.replay_options import DESTINATION_MAC, SOURCE_MAC, LossType, ReplayOptions, TextType
from lbmux.cli.lab.replay_output import as_json, print_tables
from lbmux.errors import LbmuxError, SetupError

if TYPE_CHECKING:
    from lbmux.frames.pcap import PcapWriter
    from lbmux.tools.replay.looped_capture import LoopedCapture
    from lbmux.tools.replay.replay import Result
    from lbmux.tools.replay.transmit import Sent

OWN = ("10.0.0.1", "fd00::1")
MOST_MUXES = 64


@click.command(name="replay")
@click.argument("capture", metavar="IN", type=options.PATH)
@click.option(
    "-c", "--config", type=options.PATH, envvar="LBMUX_CONFIG", show_envvar=True,
    help="Configuration file; needed without --to.",
)  # fmt: skip
@click.option(
    "-w", "--write", metavar="OUT", type=options.PATH, help="Write the frames that a mux would send, as pcap."
)
@click.option(
    "--at", "reloads", metavar="TIME=FILE", type=TextType("reload"), multiple=True,
    help="Reload the configuration from FILE at this time of the capture (5s, 200ms, 2m), and count the flows that the "
    "change breaks.  May be repeated.",
)  # fmt: skip
@click.option(
    "--muxes", type=click.IntRange(1, MOST_MUXES), default=1, show_default=True,
    help="Number of muxes with the same tables; the hash of the five fields spreads flows over them.",
)  # fmt: skip
@click.option(
    "--lose", "losses", metavar="MUX@TIME", type=LossType(), multiple=True,
    help="Lose a mux (mux1, mux2, ...) at this time: its flows go to the others.  May be repeated.",
)  # fmt: skip
@click.option(
    "--flows-csv", metavar="FILE", type=options.PATH,
    help="Write the flows as CSV (- is standard output): addresses, ports, service, backends, times, packets, bytes, "
    "broken or not.",
)  # fmt: skip
@click.option(
    "--map", "mappings", metavar="DESTINATION=VIP", type=TextType("mapping"), multiple=True,
    help="Replace a destination: ADDRESS=VIP, or ADDRESS:PORT=VIP:PORT.  Checksums are updated.  May be repeated.",
)  # fmt: skip
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
    "--source-mac", type=TextType("mac"), metavar="MAC",
    help=f"Source MAC address of sent frames. [default: {SOURCE_MAC}]",
)  # fmt: skip
@click.option(
    "--destination-mac", type=TextType("mac"), metavar="MAC",
    help=f"Their destination MAC address. [default: {DESTINATION_MAC}]",
)  # fmt: skip
@options.json
def command(**arguments: Any) -> None:
    """Send the capture IN (- is standard input) through the data path of a mux.

    IN is a pcap or pcapng file, plain or compressed with gzip or zstd.  Its link type is Ethernet, raw IP, Linux cooked
    (tcpdump -i any), loopback or PPP; packets of other link types in a pcapng file are skipped and counted.

    The output counts packets by verdict and by backend, and look-ups in the flow table by result.  A damaged capture is
    read up to the damage; the exit code is then 1.

    With --at and --lose the output counts, for each change, the flows that began before it and went on (continued),
    that it broke (broken: a later packet goes to another backend although the former one is still in the tables), whose
    backend left the tables (lost), and that stay with a removed backend (draining).  Times count from the first packet.

    With --to, frames are sent to an interface unchanged, except for --map, and except that frames without an Ethernet
    header get one with the MAC addresses of the options.  If a MAC option is given, all frames get these addresses.
    """
    wanted = ReplayOptions(**arguments)
    wanted.check()
    to_stderr = "-" in (str(wanted.write), str(wanted.flows_csv))
    with_json = click.get_current_context().meta
    with_json[options.JSON] = wanted.as_json and not to_stderr
    from lbmux.tools.replay.looped_capture import LoopedCapture

    result: Result | Sent
    error: LbmuxError | None = None
    with LoopedCapture(wanted.capture, wanted.loop, _destinations(wanted)) as looped:
        if wanted.interface:
            result = _onto_wire(looped, wanted)
        elif wanted.needs_pool:
            result, error = _through_pool(looped, wanted)
        else:
            result = _through_mux(looped, wanted)
    with_json[options.JSON] = False  # the result describes the damage
    if wanted.as_json:
        click.echo(json.dumps(as_json(wanted.capture, result), indent=1), err=to_stderr)
    else:
        print_tables(wanted.capture, result, to_stderr)
    if damage := result.damage or error:
        raise damage


def _destinations(wanted: ReplayOptions) -> Any:
    if not wanted.mappings:
        return None
    from lbmux.tools.replay.destination_map import DestinationMap

    try:
        return DestinationMap(wanted.mappings)
    except ValueError as error:
        raise click.UsageError(f"--map: {error}") from error


def _mux_arguments(wanted: ReplayOptions) -> tuple[Any, Any, Any]:
    """Return the configuration, the outer source addresses and the next hop."""
    from lbmux.config.loader import load
    from lbmux.linux.next_hops import NextHop
    from lbmux.tables.mux_rows import ETHERNET_MTU

    assert wanted.config is not None
    return load(wanted.config), (*wanted.addresses, *map(ip_address, OWN)), NextHop(0, *wanted.macs, ETHERNET_MTU)


@contextlib.contextmanager
def _outputs(
    looped: "LoopedCapture", write: Path | None
) -> "Iterator[tuple[PcapWriter | None, Callable[[int], None] | None]]":
    """The writer of sent frames, if any, and the function that shows progress, if any."""
    from lbmux.frames.pcap import PcapWriter

    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(PcapWriter(write, looped.raw, looped.nanoseconds)) if write else None
        yield writer, stack.enter_context(progress(looped))


def _through_mux(looped: "LoopedCapture", wanted: ReplayOptions) -> "Result":
    from lbmux.tools.replay.replay import ReplayMux, replay

    mux = ReplayMux(*_mux_arguments(wanted))
    with _outputs(looped, wanted.write) as outputs:
        return replay(looped, mux, *outputs)


def _through_pool(looped: "LoopedCapture", wanted: ReplayOptions) -> "tuple[Result, LbmuxError | None]":
    """Return the result, and the error about changes that did not come into force, if any."""
    from lbmux.tools.replay import flows_csv
    from lbmux.tools.replay.replay_changes import Loss, Timeline, TooLateError, load_reloads
    from lbmux.tools.replay.replay_pool import ReplayPool, replay_pool

    arguments = _mux_arguments(wanted)
    timeline = Timeline([*load_reloads(wanted.reloads), *(Loss(*each) for each in wanted.losses)])
    pool, error = ReplayPool(*arguments, wanted.muxes), None
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_csv(wanted.flows_csv)) if wanted.flows_csv else None
        outputs = stack.enter_context(_outputs(looped, wanted.write))
        result = replay_pool(looped, pool, timeline, *outputs)
        if file is not None:
            flows_csv.write(file, pool, timeline.start_ns)
    try:
        timeline.check()
    except TooLateError as late:
        error = late
    return result, error


def _csv(path: Path) -> contextlib.AbstractContextManager[TextIO]:
    if str(path) == "-":
        return contextlib.nullcontext(sys.stdout)
    try:
        return path.open("w", newline="")
    except OSError as error:
        raise SetupError(str(path), error.strerror or str(error), "name another file to write") from error


def _onto_wire(looped: "LoopedCapture", wanted: ReplayOptions) -> "Sent":
    from lbmux.tools.replay.transmit import Macs, Wire, put_on_wire

    assert wanted.interface is not None
    every = wanted.source_mac is not None or wanted.destination_mac is not None
    with Wire(wanted.interface, Macs(*wanted.macs, every)) as wire, progress(looped) as update:
        return put_on_wire(looped, wire, wanted.pps, update)
