"""What a daemon is asked and cannot say: an answer that tells what to do instead, not a list of its commands."""

from collections.abc import Mapping
from typing import Any

from lbmux.api.control_socket import Handler
from lbmux.errors import LbmuxError

OF_A_MUX = {
    "bgp": "this mux announces nothing by BGP: start it with --bgp-peer ADDRESS",
}
OF_AN_AGENT = {
    "bgp": "an agent announces nothing: name the socket of a mux or an edge by --control",
}
OF_AN_EDGE = dict.fromkeys(
    ("services", "backends", "neighbours", "counters", "runtime", "flows", "flow_count"),
    "an edge forwards nothing and has no tables: it has `lbmux show health` and `lbmux show bgp`",
)


def refuse_requests(reasons: Mapping[str, str]) -> dict[str, Handler]:
    """Handlers of a control socket; ``reasons`` are by command."""
    return {command: _refuse(reason) for command, reason in reasons.items()}


def _refuse(reason: str) -> Handler:
    async def handler(**arguments: Any) -> None:
        raise LbmuxError(reason)

    return handler
