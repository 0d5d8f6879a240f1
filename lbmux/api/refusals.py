"""Answers to requests that a daemon cannot handle: they say what to do instead."""

from collections.abc import Mapping
from typing import Any

from lbmux.api.control_socket import Handler
from lbmux.errors import LbmuxError

OF_A_MUX = {
    "bgp": "this mux does not use BGP; to announce its VIPs, start it with --bgp-peer ADDRESS",
}
OF_AN_AGENT = {
    "bgp": "an agent does not use BGP; use --control with the socket of a mux or an edge",
}
OF_AN_EDGE = dict.fromkeys(
    ("services", "backends", "neighbours", "counters", "runtime", "flows", "flow_count"),
    "an edge does not forward and has no tables; use `lbmux show health` or `lbmux show bgp`",
)


def refuse_requests(reasons: Mapping[str, str]) -> dict[str, Handler]:
    """Return handlers that refuse requests; ``reasons`` maps commands to reasons."""
    return {command: _refuse(reason) for command, reason in reasons.items()}


def _refuse(reason: str) -> Handler:
    async def handler(**arguments: Any) -> None:
        raise LbmuxError(reason)

    return handler
