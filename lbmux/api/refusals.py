"""Answers to requests that a daemon cannot handle: they say what to do instead."""

from collections.abc import Mapping
from typing import Any

from lbmux.api.control_server import Handler, Kind
from lbmux.api.requests import (
    CountFlows,
    GetBackends,
    GetBgp,
    GetCounters,
    GetFlows,
    GetHistory,
    GetNeighbours,
    GetRoundTrips,
    GetRuntime,
    GetServices,
    HoldRoutes,
    Parole,
    Request,
)
from lbmux.errors import LbmuxError

OF_A_MUX: dict[Kind, str] = dict.fromkeys(
    (GetBgp, HoldRoutes), "this mux does not use BGP; to announce its VIPs, start it with --bgp-peer ADDRESS"
) | {GetRoundTrips: "a mux has no connections of clients; use --control with the socket of an agent"}
OF_AN_AGENT: dict[Kind, str] = dict.fromkeys(
    (GetBgp, HoldRoutes), "an agent does not use BGP; use --control with the socket of a mux or an edge"
) | {
    GetHistory: "an agent keeps no history; use --control with the socket of a mux",
    Parole: "an agent has no black holes; use --control with the socket of a mux",
}
OF_AN_EDGE: dict[Kind, str] = dict.fromkeys(
    (
        GetServices,
        GetBackends,
        GetNeighbours,
        GetCounters,
        GetRuntime,
        GetFlows,
        CountFlows,
        GetHistory,
        GetRoundTrips,
        Parole,
    ),
    "an edge does not forward and has no tables; use `lbmux show health` or `lbmux show bgp`",
)


def refuse_requests(reasons: Mapping[Kind, str]) -> dict[Kind, Handler]:
    """Return handlers that refuse requests; ``reasons`` maps requests to reasons."""
    return {kind: _refuse(reason) for kind, reason in reasons.items()}


def _refuse(reason: str) -> Handler:
    async def handler(request: Request[Any]) -> None:
        raise LbmuxError(reason)

    return handler
