"""ExaBGP as the speaker: a child whose API is a relay to a socket of ours.

It stays root: to change its user would take the kernel's word from it that it dies with its parent.
"""

import asyncio
import contextlib
import importlib.util
import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from lbmux.control.announcer import relay
from lbmux.control.announcer.settings import Bgp, Neighbour, Prefix, in_order
from lbmux.control.announcer.speaker import write_private
from lbmux.errors import SetupError

CHUNK = 100
"""Prefixes in one command."""


def configuration(bgp: Bgp, directory: Path) -> str:
    run = f"{sys.executable} -I -S {relay.__file__} {directory / 'api.sock'}"
    lines = [f"process mux {{ run {run}; encoder json; }}"]
    families = "".join(f"ipv{v} unicast; " for v, own in ((4, bgp.local), (6, bgp.local6)) if own is not None)
    password = [f'md5-password "{bgp.password}";'] if bgp.password else []
    for peer in bgp.peers:
        lines += [
            f"neighbor {peer.address} {{",
            f"router-id {bgp.router_id};", f"local-address {bgp.local_to(peer)};",
            f"local-as {bgp.number};", f"peer-as {peer.number};", f"hold-time {bgp.hold_s};",
            *password,
            f"family {{ {families}}}",
            "api { processes [ mux ]; neighbor-changes; }",
            "}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def commands(verb: str, prefixes: Iterable[Prefix], bgp: Bgp) -> list[str]:
    """``announce`` or ``withdraw``, many prefixes a line: each line is a turn of ExaBGP's loop."""
    attributes = [f"med {bgp.med}"] if bgp.med is not None else []
    if bgp.communities:
        attributes.append(f"community [ {' '.join(f'{high}:{low}' for high, low in bgp.communities)} ]")
    return [
        f"{verb} attributes {' '.join([f'next-hop {hop}', *attributes])} nlri {' '.join(names[at : at + CHUNK])}"
        for version, hop in ((4, bgp.local), (6, bgp.local6))
        if hop is not None
        for names in [in_order(prefixes, version)]
        for at in range(0, len(names), CHUNK)
    ]


class Exabgp:
    name = "exabgp"
    environment: Mapping[str, str] = {
        "exabgp_daemon_drop": "false",
        "exabgp_api_terminate": "true",
        "exabgp_api_cli": "false",
        "exabgp_api_ack": "false",
        "exabgp_log_level": "WARNING",
    }

    def __init__(self, bgp: Bgp, directory: Path) -> None:
        self._bgp, self._directory = bgp, directory
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._up_since: dict[str, float] = {}
        self._prefixes: frozenset[Prefix] = frozenset()

    def command(self) -> list[str]:
        if importlib.util.find_spec("exabgp") is None:
            raise SetupError("BGP speaker exabgp", "not installed", "pip install 'lbmux[bgp]', or --bgp-speaker bird")
        return [sys.executable, "-m", "exabgp", "server", str(self._directory / "exabgp.conf")]

    async def prepare(self, prefixes: frozenset[Prefix]) -> None:
        """What to announce is told when the relay connects."""
        await self.close()
        self._prefixes = prefixes
        write_private(self._directory / "exabgp.conf", configuration(self._bgp, self._directory))
        path = self._directory / "api.sock"
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def change(self, before: frozenset[Prefix], after: frozenset[Prefix]) -> None:
        self._prefixes = after
        if self._writer is None:  # not there yet; it will be told
            return
        self._tell(commands("withdraw", before - after, self._bgp) + commands("announce", after - before, self._bgp))
        await self._writer.drain()

    async def neighbours(self) -> list[Neighbour]:
        now, found = time.monotonic(), []
        for peer in self._bgp.peers:
            since = self._up_since.get(str(peer.address))
            up = since is not None
            state, uptime_s = ("established", round(now - since, 3)) if since is not None else ("down", None)
            found.append(
                Neighbour(str(peer.address), peer.number, state, uptime_s, len(self._prefixes) if up else 0)
            )
        return found

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()
        self._server = self._writer = None

    def _tell(self, lines: list[str]) -> None:
        assert self._writer is not None
        self._writer.write("".join(f"{line}\n" for line in lines).encode())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._tell(commands("announce", self._prefixes, self._bgp))
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self._hear(line)
        self._up_since.clear()
        if self._writer is writer:
            self._writer = None
        writer.close()

    def _hear(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            event = json.loads(line)
            if event["type"] == "state":
                peer = event["neighbor"]["address"]["peer"]
                if event["neighbor"]["state"] == "up":
                    self._up_since[peer] = time.monotonic()
                else:
                    self._up_since.pop(peer, None)
