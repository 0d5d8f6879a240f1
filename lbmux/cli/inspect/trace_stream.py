"""Code that `lbmux trace` and `lbmux capture` share: frames from a running daemon, and messages about the stream."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from lbmux.plurals import counted

if TYPE_CHECKING:
    from lbmux.api.answers import SlowPathReport, TracedFrame, TraceStart
    from lbmux.api.channel import ControlTarget


def traced(
    path: "ControlTarget",
    expression: str,
    most: int | None,
    wanted: "Callable[[TracedFrame], bool]" = lambda frame: True,
) -> "Iterator[TracedFrame]":
    """Yield up to ``most`` matching frames; report the start, and frames that were skipped, on standard error."""
    from lbmux.api.answers import TraceStart
    from lbmux.api.control_client import ControlClient
    from lbmux.api.requests import Trace

    count = skipped = lost = 0
    try:
        for answer in ControlClient(path, timeout_s=None).stream(Trace(expression)):
            if isinstance(answer, TraceStart):
                _begin(answer)
                continue
            skipped, lost = skipped + answer.skipped, lost + answer.lost
            for frame in filter(wanted, answer.frames):
                yield frame
                count += 1
                if count == most:
                    return
    finally:
        if skipped or lost:
            frames, matches = counted(skipped, "frame"), counted(lost, "match", "matches")
            click.echo(f"lbmux: {frames} skipped (rate limit), {matches} lost", err=True)


def slow_path_text(slow: "SlowPathReport", is_dropped: bool) -> str:
    """Describe what the slow path did with a frame, by the names of its counters (`lbmux show counters`)."""
    if slow.did:
        return " and ".join(slow.did) + (": dropped" if is_dropped else "")
    return "forwarded" if slow.sent else "nothing yet: a fragment is held, or the packet is left to the kernel's stack"


def _begin(answer: "TraceStart") -> None:
    where = f"{answer.program} on {answer.interface}"
    click.echo(f"lbmux: tracing the {where}; press Ctrl-C to stop", err=True)
    if answer.unseen:
        click.echo(
            f"lbmux: frames that the kernel program forwards or drops are not shown: {answer.unseen} (use `--driver"
            " packet` on a mux or `--driver tun` on an agent to see all frames)",
            err=True,
        )
