"""Sets the weights of HAProxy's servers through its runtime API (HAProxy Management Guide, section 9.3)."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from lbmux.errors import SetupError

HIGHEST = 256
"""HAProxy's highest weight."""
TIMEOUT_S = 2.0


def commands(backend: str, shares: Mapping[str, float]) -> str:
    """Return the commands that give servers of a backend their shares of the requests."""
    top = max(shares.values(), default=0.0) or 1.0
    return "; ".join(
        f"set server {backend}/{server} weight {round(HIGHEST * share / top)}" for server, share in shares.items()
    )


async def set_weights(api: str, backend: str, shares: Mapping[str, float], relative_to: Path) -> None:
    """Set weights at one HAProxy. ``api``: a socket's path, or HOST:PORT. Raise SetupError with HAProxy's answer."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await _ask(api, commands(backend, shares), relative_to)
    except (OSError, ValueError) as error:
        raise SetupError(f"proxy {api}", str(error) or "no answer", "its weights stay") from error
    if answer.strip():
        raise SetupError(f"proxy {api}", answer.strip().splitlines()[0], "name its backend with `proxy_backend`")


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
