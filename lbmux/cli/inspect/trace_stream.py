"""What `lbmux trace` and `lbmux capture` share: the frames of a running daemon, and what must be said beside them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from lbmux.plurals import counted


def traced(
    path: Path, expression: str, most: int | None, wanted: Callable[[dict[str, Any]], bool] = lambda frame: True
) -> Iterator[dict[str, Any]]:
    """So many frames that match and are wanted; on stderr, when it begins and what was not looked at."""
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
            click.echo(f"lbmux: not looked at: {frames} (too many a second); lost: {matches}", err=True)


def said_of_slow_path(frame: dict[str, Any]) -> str:
    """By the names of what it counted (`lbmux show counters`)."""
    slow = frame["slowpath"]
    if slow["did"]:
        return " and ".join(slow["did"]) + (": dropped" if frame["dropped"] else "")
    return "sent on" if slow["sent"] else "nothing yet: a fragment that waits for others, or left to the kernel's stack"


def _begin(answer: dict[str, Any]) -> None:
    where = f"{answer['program']} on {answer['interface']}"
    click.echo(f"lbmux: watching the {where}; Ctrl-C ends", err=True)
    if answer["unseen"]:
        click.echo(
            f"lbmux: what the kernel's program forwards or drops itself is not seen: {answer['unseen']} (`--driver"
            " packet` of a mux, or `tun` of an agent, has all frames in user space)",
            err=True,
        )
