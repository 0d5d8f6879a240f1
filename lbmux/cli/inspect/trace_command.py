"""`lbmux trace`: shows single frames of a running mux or agent, with their steps and verdicts."""

import base64
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from lbmux.cli import options
from lbmux.cli.where import Where, where

if TYPE_CHECKING:
    from lbmux.api.answers import TracedFrame
    from lbmux.api.channel import ControlTarget


@click.command(name="trace")
@where(default="the mux on this machine, else the agent, else the edge")
@click.option(
    "-n", "--count", type=click.IntRange(1), default=10, show_default=True, help="Stop after this many frames."
)
@click.option("-v", "--verbose", is_flag=True, help="Show every header of each frame, with its fields.")
@options.json_of("Print JSON, one line per frame.")
@click.argument("filter", metavar="[FILTER]", nargs=-1)
def command(where: Where, count: int, verbose: bool, as_json: bool, filter: tuple[str, ...]) -> None:
    """Show matching frames of a running mux or agent: each step that they took, and the verdict.

    FILTER is as in `lbmux show flows` (host, net, port, tcp, udp, service, backend, and, or, not), with three more
    words: icmp, drop, verdict NAME.  drop matches frames that were dropped by their verdict or by the slow path.  At an
    agent, FILTER applies to client and VIP, regardless of the tunnel.  The daemon reconstructs the steps right
    afterwards, so a flow that the frame has created exists by then.  For frames that take the slow path (ICMP,
    fragments, packets that are too big), all frames sent in response are shown.
    """
    from lbmux.api.protocol import VERSION, to_json
    from lbmux.cli.inspect.trace_stream import traced

    path = where.one()
    for frame in traced(path, " ".join(filter), count):
        steps, layers = _steps(path, frame), _dissected(frame) if verbose else []
        if as_json:
            more = {"steps": steps, "layers": layers} if verbose else {"steps": steps}
            click.echo(to_json({"version": VERSION, **vars(frame), **more}))
        else:
            _print(frame, steps, layers)


def _steps(path: "ControlTarget", frame: "TracedFrame") -> list[dict[str, Any]]:
    """Return the frame's path: the result of each step that it reached, and what the slow path did."""
    steps = _ask_mux(path, frame) if frame.program == "mux" else _ask_agent(path, frame)
    return steps + _slow_path_note(frame)


def _dissected(frame: "TracedFrame") -> list[dict[str, Any]]:
    """Each copy of the frame (as it came, as it left, what the slow path sent), and a line for each of its headers."""
    from lbmux.tools.dissect import dissect

    sent = frame.slowpath.sent if frame.slowpath else []
    copies = [("came", frame.frame), ("left", frame.left), *(("sent", one.frame) for one in sent)]
    return [{"copy": name, "headers": dissect(base64.b64decode(data))} for name, data in copies if data]


def _step(step: str, found: str, afterwards: bool = False) -> dict[str, Any]:
    """``afterwards``: the result is from the time of the question, not of the frame's arrival."""
    return {"step": step, "found": found, "afterwards": afterwards}


def _ask_mux(path: "ControlTarget", frame: "TracedFrame") -> list[dict[str, Any]]:
    """Return why a frame could not be parsed, if so, and the steps with which explain describes it now."""
    from lbmux.datapath.verdicts import Verdict
    from lbmux.errors import LbmuxError
    from lbmux.tools.explain_frame import explain_frame
    from lbmux.tools.packet_text import PacketError
    from lbmux.tools.parse_reasons import PARSE_REASONS

    verdict = Verdict[frame.verdict.upper()]
    parsed = [_step("parse", PARSE_REASONS[verdict])] if verdict in PARSE_REASONS else []
    try:
        explanation = explain_frame(base64.b64decode(frame.frame), path)
    except PacketError:  # not IP
        return parsed
    except LbmuxError as error:  # the mux has stopped, or explain cannot build such a packet
        return [*parsed, _step("not explained", str(error))]
    shown_elsewhere = ("packet", "verdict") if frame.slowpath is None else ("packet", "verdict", "slow path")
    results = [(step.step, step.found) for step in explanation.steps if step.step not in shown_elsewhere]
    if explanation.hint:
        results.append(("hint", explanation.hint))
    return parsed + [_step(*one, afterwards=True) for one in results]


def _ask_agent(path: "ControlTarget", frame: "TracedFrame") -> list[dict[str, Any]]:
    """Return the frame that an agent got, the results of the agent's steps now, and the frame that left."""
    from lbmux.datapath.verdicts import Verdict
    from lbmux.errors import LbmuxError
    from lbmux.slowpath.tunnels import Ports
    from lbmux.tools.explain_agent import Passage, explain_at_agent

    original = base64.b64decode(frame.frame)
    left = None if frame.left is None else base64.b64decode(frame.left)
    steps = [_copy_step("came", original, frame.interface)]
    try:
        verdict, ports = Verdict[frame.verdict.upper()], Ports(**frame.tunnel_ports)
        passage = Passage(original, verdict, left, frame.is_reply, ports)
        steps += [_step(step.step, step.found, afterwards=True) for step in explain_at_agent(passage, path)]
    except LbmuxError as error:
        steps.append(_step("not explained", str(error)))
    return steps + ([_copy_step("left", left, frame.left_by or "")] if left else [])


def _slow_path_note(frame: "TracedFrame") -> list[dict[str, Any]]:
    """Return what the slow path did with the frame, if it got it, and each frame that it sent in response."""
    from lbmux.cli.inspect.trace_stream import slow_path_text

    slow = frame.slowpath
    if slow is None:
        return []
    sent = [_copy_step("sent", base64.b64decode(one.frame), one.interface) for one in slow.sent]
    return [_step("slow path", slow_path_text(slow, frame.dropped)), *sent]


def _copy_step(step: str, data: bytes, interface: str) -> dict[str, Any]:
    from lbmux.tracing.header_summary import HeaderSummary

    return _step(step, f"{HeaderSummary.read(data)}, {interface}")


def _print(frame: "TracedFrame", steps: Sequence[dict[str, Any]], layers: Sequence[dict[str, Any]]) -> None:
    seconds, rest = divmod(frame.time_ns, 1_000_000_000)
    at = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1000:06}"
    click.echo(f"{click.style(at, bold=True)} {frame.interface} {frame.line}")
    for copy in layers:
        for line in copy["headers"]:
            click.echo(f"  {copy['copy']:13} {line}")
    for step in steps:
        click.echo(f"  {step['step']:13} {step['found']}{' (asked afterwards)' if step['afterwards'] else ''}")
    owner = "/".join(name for name in (frame.service, frame.backend) if name)
    click.echo(f"  {'verdict':13} {frame.verdict} ({frame.kind}){f', {owner}' if owner else ''}")
