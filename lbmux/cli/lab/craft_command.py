"""`lbmux craft`: creates frames from scapy expressions, as a capture or in hexadecimal."""

import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import click

from lbmux.cli import options
from lbmux.plurals import counted

PPS = 1000
LINK_ETHERNET = 1


@click.command(name="craft")
@click.option("-w", "--write", metavar="OUT", type=options.PATH, help="Write a pcap file (- is standard output).")
@click.option(
    "-n", "--count", type=click.IntRange(1),
    help="Number of frames; the expressions repeat as needed. [default: each packet once]",
)  # fmt: skip
@click.option(
    "--pps", type=click.IntRange(1, 1_000_000), default=PPS, show_default=True,
    help="Packets per second in the timestamps of the capture, which start at 0.",
)  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Print all headers with their fields instead of hexadecimal.")
@click.argument("expressions", metavar="EXPRESSION...", nargs=-1, required=True)
def command(write: Path | None, count: int | None, pps: int, verbose: bool, expressions: tuple[str, ...]) -> None:
    """Create frames from scapy expressions: a capture for `lbmux replay` or, without -w, one line of hex per frame.

    An EXPRESSION consists of layers with named fields, joined by /, such as 'IP(dst="192.0.2.1")/TCP(dport=80)'.  In a
    field, a tuple of two numbers is a range, a list stands for its elements, and a prefix for all its addresses:
    'IP(dst="192.0.2.1")/UDP(sport=(1,9))' is nine packets.  A string or bytes after / is the payload.

    The layers are those of scapy.layers.l2, inet, inet6, dns, vxlan and ppp.  Missing lengths and checksums are
    computed, and a missing Ethernet header is added.  The default source address is 198.51.100.1 or 2001:db8:ffff::1.
    Any other Python is refused; expressions are never executed as code.
    """
    from lbmux.tools.craft import craft

    if write is not None and verbose:
        raise click.UsageError("-v and -w exclude each other")
    frames = craft(expressions, count)
    if write is not None:
        frames = itertools.chain([next(frames)], frames)  # build the first frame before the file is created
        written = _write(write, frames, pps)
        click.echo(f"{write}: {counted(written, 'packet')}", err=str(write) == "-")
    elif verbose:
        _print_headers(frames)
    else:
        for frame in frames:
            click.echo(frame.hex())


def _print_headers(frames: Iterable[bytes]) -> None:
    from lbmux.tools.dissect import dissect

    for number, frame in enumerate(frames, 1):
        click.echo(click.style(f"{number}: {counted(len(frame), 'byte')}", bold=True))
        for line in dissect(frame):
            click.echo(f"  {line}")


def _write(path: Path, frames: Iterable[bytes], pps: int) -> int:
    """Write the frames to a pcap file and return their number; raise SetupError if the file cannot be written."""
    from scapy.utils import RawPcapWriter

    from lbmux.errors import SetupError

    written = 0
    try:
        file: BinaryIO = sys.stdout.buffer if str(path) == "-" else path.open("wb")
        with RawPcapWriter(file, linktype=LINK_ETHERNET) as writer:
            writer.write_header(None)
            for frame in frames:
                seconds, rest = divmod(written, pps)
                writer.write_packet(frame, sec=seconds, usec=rest * 1_000_000 // pps)
                written += 1
    except OSError as error:
        raise SetupError(str(path), error.strerror or str(error), "name another file to write") from error
    return written
