"""`lbmux capture`: frames of a running mux or agent into a file for Wireshark, each with its verdict as a comment."""

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbmux.cli import options

if TYPE_CHECKING:
    from lbmux.frames.pcapng_writer import PcapngWriter

PLACES = ("in", "out", "drop")


class Places(click.ParamType[frozenset[str]]):
    name = "places"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[str]:
        wanted = frozenset(str(value).split(","))
        if unknown := wanted - {*PLACES}:
            self.fail(f"{min(unknown)!r}: there are {', '.join(PLACES)}", param, ctx)
        return wanted


@click.command(name="capture")
@options.control
@click.option(
    "--at", "places", type=Places(), default="in,out,drop", show_default=True,
    help="in: frames as they came; out: as they left; drop: as they came, those that were dropped.",
)  # fmt: skip
@click.option(
    "--inner", is_flag=True, help="Write frames without the tunnel's headers: that left a mux, or came to an agent."
)
@click.option("-n", "--count", type=click.IntRange(1), help="End after so many matching frames. [default: at Ctrl-C]")
@click.option("-w", "--write", "file", type=options.PATH, required=True, help="The file to write, in pcapng.")
@click.argument("filter", metavar="[FILTER]", nargs=-1)
def command(
    control: Path | None, places: frozenset[str], inner: bool, count: int | None, file: Path, filter: tuple[str, ...]
) -> None:
    """Write frames that a running mux or agent gets, and that match, to a file for Wireshark or tshark.

    Each has its verdict as a comment, and its interface by name.  A frame that is forwarded is there twice, as it came
    and as it left.  FILTER as in `lbmux trace`.
    """
    from lbmux.cli.watched import watched
    from lbmux.control.control_socket import meant_path
    from lbmux.errors import SetupError
    from lbmux.frames.pcapng_writer import PcapngWriter

    def wanted(frame: dict[str, Any]) -> bool:
        return any(True for _ in _pictures(frame, places, inner))

    written = 0
    try:
        with file.open("wb") as opened, contextlib.suppress(KeyboardInterrupt):  # the usual end of a capture
            writer = PcapngWriter(opened)
            for frame in watched(meant_path(control), " ".join(filter), count, wanted):
                written += _write(writer, frame, places, inner)
    except OSError as error:
        raise SetupError(str(file), error.strerror or str(error), "name another file") from error
    click.echo(f"{written} packets in {file}")


def _write(writer: "PcapngWriter", frame: dict[str, Any], places: frozenset[str], inner: bool) -> int:
    from lbmux.frames.pcapng_writer import INBOUND, OUTBOUND

    owner = "".join(f", {what} {frame[what]}" for what in ("service", "backend") if frame[what])
    comment = f"verdict {frame['verdict']} ({frame['kind']}){owner}"
    written = 0
    for place, interface, data in _pictures(frame, places, inner):
        direction = OUTBOUND if place == "out" else INBOUND
        writer.write(frame["time_ns"], interface, data, f"{place}: {comment}", direction)
        written += 1
    return written


def _pictures(frame: dict[str, Any], places: frozenset[str], inner: bool) -> Iterator[tuple[str, str, bytes]]:
    """A frame at those of the places where it was: the place, the interface, the bytes."""
    from lbmux.control.watching import flow_at_agent, without_tunnel
    from lbmux.datapath.verdicts import Verdict

    came = base64.b64decode(frame["frame"])
    left = None if frame["left"] is None else base64.b64decode(frame["left"])
    verdict = Verdict[frame["verdict"].upper()]
    if inner and verdict == Verdict.FORWARDED and left is not None:
        left = without_tunnel(came, left)
    elif inner and frame["program"] == "agent" and verdict != Verdict.REPLIED:
        came = flow_at_agent(came, left, verdict) or came
    if "in" in places:
        yield "in", frame["interface"], came
    elif "drop" in places and frame["kind"] == "drop":
        yield "drop", frame["interface"], came
    if "out" in places and left is not None:
        yield "out", frame["left_by"], left
