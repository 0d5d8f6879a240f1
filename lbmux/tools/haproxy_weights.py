"""Sets the weights of HAProxy's servers through its runtime API, and reads how its health checks find them.

HAProxy Management Guide, sections 9.1 (statistics) and 9.3 (commands).
"""

import asyncio
import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lbmux.errors import SetupError

HIGHEST = 256
"""HAProxy's highest weight."""
TIMEOUT_S = 2.0
STATISTICS = "# pxname,"
"""The start of the statistics in an answer."""


@dataclass(frozen=True)
class ServerState:
    """``rtt_ms``: how long the last health check took, usually one round trip; None: there was none."""

    is_up: bool
    rtt_ms: float | None


def commands(backend: str, shares: Mapping[str, float]) -> str:
    """Return the commands that give servers of a backend their shares of the requests, and ask for their states."""
    top = max(shares.values(), default=0.0) or 1.0
    weights = [
        f"set server {backend}/{server} weight {round(HIGHEST * share / top)}" for server, share in shares.items()
    ]
    return "; ".join([*weights, f"show stat {backend} 4 -1"])


async def set_weights(api: str, backend: str, shares: Mapping[str, float], relative_to: Path) -> dict[str, ServerState]:
    """Set weights at one HAProxy, and return its servers' states. ``api``: a socket's path, or HOST:PORT.

    Raise SetupError with HAProxy's answer.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await _ask(api, commands(backend, shares), relative_to)
    except (OSError, ValueError) as error:
        raise SetupError(f"proxy {api}", str(error) or "no answer", "its weights stay") from error
    refusal, head, statistics = answer.partition(STATISTICS)
    if refusal.strip():
        raise SetupError(f"proxy {api}", refusal.strip().splitlines()[0], "name its backend with `proxy_backend`")
    return states(head + statistics)


def states(statistics: str) -> dict[str, ServerState]:
    """Return the states of servers from HAProxy's statistics, which are CSV."""
    rows = csv.DictReader(statistics.splitlines())
    return {
        row["svname"]: ServerState(not row["status"].startswith("DOWN"), float(row["check_duration"] or 0.0) or None)
        for row in rows
        if row.get("svname") and row.get("status")
    }


async def _ask(api: str, line: str, relative_to: Path) -> str:
    host, _, port = api.rpartition(":")
    if host and "/" not in api:
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    else:
        reader, writer = await asyncio.open_unix_connection(relative_to / api)
    try:
        writer.write(line.encode() + b"\n")
        return (await reader.read()).decode(errors="replace")
    finally:
        writer.transport.abort()
