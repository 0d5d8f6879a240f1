"""`lbmux show history`, `top-talkers` and `round-trips`: a mux's traffic over time and by VIP; a host's clients."""

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from lbmux.cli import options
from lbmux.cli.inspect.node_answers import ask_all, print_json, print_node, same
from lbmux.cli.inspect.show_command import command
from lbmux.cli.text_table import print_table
from lbmux.cli.where import Where, where

if TYPE_CHECKING:
    from lbmux.api.answers import BlackHole, History
    from lbmux.api.control_client import ControlClient
    from lbmux.api.vip_rates import TopTalkers

__all__ = ["command"]


@command.command()
@where()
@options.json
@click.option(
    "--seconds",
    type=click.IntRange(1, 900),
    default=60,
    show_default=True,
    help="How many seconds to go back, at most 900.",
)
def history(where: Where, as_json: bool, seconds: int) -> None:
    """Show a node's traffic in each of the last seconds, and its log's lines of that time."""
    from time import time

    from lbmux.api.requests import GetHistory

    since = time() - seconds
    for node, answer in ask_all(where, lambda client: client.ask(GetHistory(since))):
        if as_json:
            print_json(node, answer)
        else:
            print_node(node)
            _print_history(answer)


def _print_history(answer: "History") -> None:
    print_table(
        [
            {
                "time": _clock(one.second), "packets/s": round(one.packets), "Mbit/s": f"{one.bytes * 8 / 1e6:.1f}",
                "new flows/s": None if one.new_flows is None else round(one.new_flows),
                "dropped/s": ", ".join(f"{rate:.0f} {verdict}" for verdict, rate in one.drops.items()) or None,
            }
            for one in answer.points
        ],
        same("time", "packets/s", "Mbit/s", "new flows/s", "dropped/s"),
    )  # fmt: skip
    for event in answer.events:
        click.echo(f"{_clock(event.time)} {event.level}: {event.text}")


def _clock(seconds: float) -> str:
    """Format a time since 1970 as the local time of day."""
    from time import localtime, strftime

    return strftime("%H:%M:%S", localtime(seconds))


@command.command("top-talkers")
@where()
@options.json
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="How long to measure.")
@click.option("--limit", type=click.IntRange(1), default=10, show_default=True, help="Maximum number of VIPs.")
def top_talkers(where: Where, as_json: bool, seconds: float, limit: int) -> None:
    """Show which VIPs use most of a mux: packets, bytes and new flows per second, and the share of its packets.

    Packets and bytes are those that the mux sends; new flows include those beyond a rate limit.  A VIP that is flooded
    may be a black hole: the mux drops all packets to it, for so many seconds more at most (`lbmux parole`).
    """
    for node, answer in ask_all(where, lambda client: _talkers(client, seconds, limit)):
        if as_json:
            print_json(node, answer)
            continue
        print_node(node)
        lines = [
            {
                "VIP": one.vip, "services": one.services, "packets/s": _whole(one.packets),
                "Mbit/s": None if one.bytes is None else f"{one.bytes * 8 / 1e6:.1f}",
                "new flows/s": _whole(one.new_flows), "share": None if one.share is None else f"{one.share:.0%}",
                "black hole": _black_hole(one.black_hole),
            }
            for one in answer.vips
        ]  # fmt: skip
        holes = ["black hole"] if any(one.black_hole for one in answer.vips) else []
        print_table(lines, same("VIP", "services", "packets/s", "Mbit/s", "new flows/s", "share", *holes))


def _black_hole(hole: "BlackHole | None") -> str | None:
    if hole is None:
        return None
    return f"{hole.left_s:.0f} s left, {hole.dropped} dropped" + (", and upstream" if hole.upstream else "")


def _talkers(client: "ControlClient", seconds: float, limit: int) -> "TopTalkers":
    """Read a mux's counters twice."""
    from time import monotonic, sleep

    from lbmux.api.counter_rates import CounterSnapshot
    from lbmux.api.requests import GetBackends, GetRuntime, GetServices
    from lbmux.api.vip_rates import top_talkers

    before = CounterSnapshot(monotonic(), client.whole(GetBackends()).backends, ())
    sleep(seconds)
    after = CounterSnapshot(monotonic(), client.whole(GetBackends()).backends, ())
    talkers = top_talkers(client.whole(GetServices()).services, before, after)
    overload = client.ask(GetRuntime()).overload
    holes = overload.black_holes if overload else {}
    vips = [replace(one, black_hole=holes.get(one.vip)) for one in talkers.vips]
    vips.sort(key=lambda one: one.black_hole is None)
    return replace(talkers, vips=vips[:limit])


def _whole(rate: float | None) -> int | None:
    return None if rate is None else round(rate)


@command.command("round-trips")
@where()
@options.json
def round_trips(where: Where, as_json: bool) -> None:
    """Show the round-trip times of a host's clients by prefix: the median and its 95 % interval.

    An agent reads them from the kernel.  A prefix has at least 50 connections; smaller groups are part of the prefix
    around them.
    """
    from lbmux.api.requests import GetRoundTrips

    for node, answer in ask_all(where, lambda client: client.whole(GetRoundTrips())):
        if as_json:
            print_json(node, answer)
            continue
        print_node(node)
        lines = [
            {
                "clients": one.prefix, "round trip": f"{one.rtt_ms:.1f} ms",
                "95 % interval": f"{one.low_ms:.1f} to {one.high_ms:.1f}", "connections": one.samples,
            }
            for one in answer.round_trips
        ]  # fmt: skip
        print_table(lines, same("clients", "round trip", "95 % interval", "connections"))
