"""`lbmux capture`: writes frames of a running mux or agent to a file for Wireshark, with verdicts as comments."""

import base64
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from lbmux.cli import options
from lbmux.cli.where import Where, where
from lbmux.plurals import counted

if TYPE_CHECKING:
    from lbmux.api.answers import SentFrame, TracedFrame
    from lbmux.frames.pcapng_writer import PcapngWriter

PLACES = ("in", "out", "drop")


class Places(click.ParamType[frozenset[str]]):
    name = "places"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[str]:
        wanted = frozenset(str(value).split(","))
        if unknown := wanted - {*PLACES}:
            self.fail(f"{min(unknown)!r} is not one of {', '.join(PLACES)}", param, ctx)
        return wanted


@click.command(name="capture")
@where()
@click.option(
    "--at", "places", type=Places(), default="in,out,drop", show_default=True,
    help="in: frames as they arrived; out: frames as they left, and frames that the slow path sent; drop: dropped"
    " frames, including those that the slow path dropped.",
)  # fmt: skip
@click.option(
    "--inner", is_flag=True,
    help="Remove tunnel headers from frames that left a mux or arrived at an agent; fragments of a tunnel packet stay"
    " unchanged.",
)  # fmt: skip
@click.option(
    "-n", "--count", type=click.IntRange(1), help="Stop after this many matching frames. [default: run until Ctrl-C]"
)
@click.option("-w", "--write", "file", type=options.PATH, required=True, help="The pcapng file to write.")
@click.argument("filter", metavar="[FILTER]", nargs=-1)
def command(
    where: Where, places: frozenset[str], inner: bool, count: int | None, file: Path, filter: tuple[str, ...]
) -> None:
    """Write matching frames of a running mux or agent to a file for Wireshark or tshark.

    Each frame has its verdict as a comment, its time, and the name of its interface ("route": the kernel chose it).  A
    forwarded frame is written twice: as it arrived and as it left.  Frames that the slow path sent in response (answers
    to pings, ICMP errors, fragments, resets) follow it, and their comments name it.  FILTER is as in `lbmux trace`.
    """
    from lbmux.cli.inspect.trace_stream import traced
    from lbmux.errors import SetupError
    from lbmux.frames.pcapng_writer import PcapngWriter

    def wanted(frame: "TracedFrame") -> bool:
        return any(True for _ in _shots(frame, places, inner))

    written = 0
    try:
        with file.open("wb") as opened, contextlib.suppress(KeyboardInterrupt):  # the usual end of a capture
            writer = PcapngWriter(opened)
            for frame in traced(where.one(), " ".join(filter), count, wanted):
                written += _write(writer, frame, places, inner)
    except OSError as error:
        raise SetupError(str(file), error.strerror or str(error), "name another file") from error
    click.echo(f"{counted(written, 'packet')} in {file}")


class Shot(NamedTuple):
    """A frame at one place; ``data`` may be truncated, ``length`` is the whole length in bytes."""

    place: str
    time_ns: int
    interface: str
    data: bytes
    length: int

    def without(self, strip: Callable[[bytes], bytes | None]) -> "Shot":
        """Return the frame without what ``strip`` removes; unchanged if it removes nothing."""
        data = strip(self.data) or self.data
        return self._replace(data=data, length=self.length - len(self.data) + len(data))


def _write(writer: "PcapngWriter", frame: "TracedFrame", places: frozenset[str], inner: bool) -> int:
    from lbmux.cli.inspect.trace_stream import slow_path_text
    from lbmux.frames.pcapng_writer import INBOUND, OUTBOUND

    owner = "".join(
        f", {what} {name}" for what, name in (("service", frame.service), ("backend", frame.backend)) if name
    )
    slow = f", slow path: {slow_path_text(frame.slowpath, frame.dropped)}" if frame.slowpath else ""
    written = 0
    for shot in _shots(frame, places, inner):
        comment = f"{shot.place}: verdict {frame.verdict} ({frame.kind}){owner}{slow}"
        if slow and shot.place == "out":
            comment += f", in response to {frame.line}"
        direction = OUTBOUND if shot.place == "out" else INBOUND
        writer.write(shot.time_ns, shot.interface, shot.data, shot.length, comment, direction)
        written += 1
    return written


def _shots(frame: "TracedFrame", places: frozenset[str], inner: bool) -> Iterator[Shot]:
    """Yield a frame at each of the places where it was, and the frames that the slow path sent in response."""
    from lbmux.datapath.verdicts import Verdict
    from lbmux.slowpath.tunnels import Ports, inner_frame
    from lbmux.tracing.inner_frames import flow_at_agent, without_tunnel

    came, left, verdict = _shot("in", frame), _left(frame), Verdict[frame.verdict.upper()]
    sent = [_shot("out", one) for one in frame.slowpath.sent] if frame.slowpath else []
    ports = Ports(**frame.tunnel_ports)
    if inner and verdict == Verdict.FORWARDED and left is not None:
        left = left.without(lambda data: without_tunnel(came.data, data))
    elif inner and frame.program == "agent" and verdict not in (Verdict.REPLIED, Verdict.HAIRPIN):
        came = came.without(lambda data: flow_at_agent(data, left and left.data, verdict, ports))
    if "in" in places:
        yield came
    elif "drop" in places and frame.dropped:
        yield came._replace(place="drop")
    if "out" in places:
        yield from [left] if left else []
        yield from (one.without(lambda data: inner_frame(data, ports)) for one in sent) if inner else sent


def _left(frame: "TracedFrame") -> Shot | None:
    if frame.left is None or frame.left_ns is None or frame.left_by is None or frame.left_length is None:
        return None
    return Shot("out", frame.left_ns, frame.left_by, base64.b64decode(frame.left), frame.left_length)


def _shot(place: str, copy: "TracedFrame | SentFrame") -> Shot:
    return Shot(place, copy.time_ns, copy.interface, base64.b64decode(copy.frame), copy.length)
