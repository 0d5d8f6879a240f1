"""`lbmux trace`: single frames of a running mux or agent, each with its steps and its verdict."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import click

from lbmux.cli import options


@click.command(name="trace")
@options.control
@click.option("-n", "--count", type=click.IntRange(1), default=10, show_default=True, help="End after so many frames.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON, a line a frame.")
@click.argument("filter", metavar="[FILTER]", nargs=-1)
def command(control: Path | None, count: int, as_json: bool, filter: tuple[str, ...]) -> None:
    """Show frames that a running mux or agent gets and that match, each step that they took, and the verdict.

    FILTER as in `lbmux show flows` (host, net, port, tcp, udp, service, backend, and, or, not), and: icmp, drop,
    verdict NAME.  At an agent it is of client and VIP, whatever tunnel the frame came in.  A mux is asked for the steps
    right afterwards, so a flow that the frame has made is there already.
    """
    from lbmux.cli.watched import watched
    from lbmux.control.control_socket import meant_path

    path = meant_path(control)
    for frame in watched(path, " ".join(filter), count):
        frame["steps"] = _steps(path, frame) if frame["program"] == "mux" else _way(frame)
        if as_json:
            click.echo(json.dumps({"version": 1, **frame}))
        else:
            _say(frame)


def _steps(path: Path, frame: dict[str, Any]) -> list[dict[str, str]]:
    """What explain says of the frame now; nothing of one that is not IP."""
    from lbmux.errors import ControlError
    from lbmux.tools.explain_frame import explain_frame
    from lbmux.tools.packet import PacketError

    try:
        explanation = explain_frame(base64.b64decode(frame["frame"]), path)
    except (PacketError, ControlError):
        return []
    steps = [
        {"step": step.step, "found": step.found}
        for step in explanation.steps
        if step.step not in ("packet", "verdict")
    ]
    return steps + ([{"step": "to mend it", "found": explanation.mend}] if explanation.mend else [])


def _way(frame: dict[str, Any]) -> list[dict[str, str]]:
    """What came to an agent, and what it made of it."""
    from lbmux.control.watching import Heading

    pictures = [("came", frame["frame"], frame["interface"]), ("left", frame["left"], frame["left_by"])]
    return [
        {"step": step, "found": f"{Heading.read(base64.b64decode(data))}, {interface}"}
        for step, data, interface in pictures
        if data is not None
    ]


def _say(frame: dict[str, Any]) -> None:
    seconds, rest = divmod(frame["time_ns"], 1_000_000_000)
    at = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1000:06}"
    click.echo(f"{click.style(at, bold=True)} {frame['interface']} {frame['line']}")
    asked = " (asked afterwards)" if frame["program"] == "mux" else ""
    for step in frame["steps"]:
        click.echo(f"  {step['step']:13} {step['found']}{asked}")
    owner = "/".join(name for name in (frame["service"], frame["backend"]) if name)
    click.echo(f"  {'verdict':13} {frame['verdict']} ({frame['kind']}){f', {owner}' if owner else ''}")
