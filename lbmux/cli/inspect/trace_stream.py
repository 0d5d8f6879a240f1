"""Code that `lbmux trace` and `lbmux capture` share: frames from a running daemon, and messages about the stream."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from lbmux.plurals import counted


def traced(
    path: Path, expression: str, most: int | None, wanted: Callable[[dict[str, Any]], bool] = lambda frame: True
) -> Iterator[dict[str, Any]]:
    """Yield up to ``most`` matching frames; report the start, and frames that were skipped, on standard error."""
    from lbmux.api.control_socket import ask_stream

    found = skipped = lost = 0
    try:
        for answer in ask_stream(path, "trace", filter=expression):
            if "frames" not in answer:
                _begin(answer)
                continue
            skipped, lost = skipped + answer["skipped"], lost + answer["lost"]
            for frame in filter(wanted, answer["frames"]):
                yield frame
                found += 1
                if found == most:
                    return
    finally:
        if skipped or lost:
            frames, matches = counted(skipped, "frame"), counted(lost, "match", "matches")
            click.echo(f"lbmux: {frames} skipped (rate limit), {matches} lost", err=True)


def slow_path_text(frame: dict[str, Any]) -> str:
    """Describe what the slow path did, by the names of its counters (`lbmux show counters`)."""
    slow = frame["slowpath"]
    if slow["did"]:
        return " and ".join(slow["did"]) + (": dropped" if frame["dropped"] else "")
    return (
        "forwarded" if slow["sent"] else "nothing yet: a fragment is held, or the packet is left to the kernel's stack"
    )


def _begin(answer: dict[str, Any]) -> None:
    where = f"{answer['program']} on {answer['interface']}"
    click.echo(f"lbmux: tracing the {where}; press Ctrl-C to stop", err=True)
    if answer["unseen"]:
        click.echo(
            f"lbmux: frames that the kernel program forwards or drops are not shown: {answer['unseen']} (use `--driver"
            " packet` on a mux or `--driver tun` on an agent to see all frames)",
            err=True,
        )
