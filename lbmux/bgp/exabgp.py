"""ExaBGP as the speaker: a child process whose API process relays to a socket of the mux.

It keeps the daemon's user, without its capabilities: changing the user would clear the parent-death signal.
"""

import asyncio
import contextlib
import importlib.util
import json
import re
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbmux.bgp import exabgp_relay
from lbmux.bgp.bgp_settings import ESTABLISHED, Bgp, Neighbour, Prefix, Route, sorted_prefixes
from lbmux.bgp.notifications import words
from lbmux.bgp.speaker import write_private
from lbmux.errors import SetupError
from lbmux.linux.capabilities import Capability

CHUNK = 100
"""Maximum number of prefixes in one command."""
DROPPED = "closing connection"
"""ExaBGP's message for a connection that was refused, closed or lost."""
NOTIFICATION = re.compile(r"notification (sent|received) \((\d+),(\d+)\)")


def configuration(bgp: Bgp, directory: Path) -> str:
    """Return ExaBGP's configuration file. Routes come through the relay's socket in ``directory``."""
    run = f"{sys.executable} -I -S {exabgp_relay.__file__} {directory / 'api.sock'}"
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
            "api { processes [ mux ]; neighbor-changes; fsm; receive { notification; parsed; } }",
            "}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def change_commands(before: frozenset[Route], after: frozenset[Route], bgp: Bgp) -> list[str]:
    """Return the commands for a change of routes; announcing a prefix again replaces its route."""
    gone = {route.prefix for route in before} - {route.prefix for route in after}
    new = after - before
    lines = commands("withdraw", gone, bgp)
    for attributes in sorted({(route.longer_by, route.communities) for route in new}):
        prefixes = [route.prefix for route in new if (route.longer_by, route.communities) == attributes]
        lines += commands("announce", prefixes, bgp, *attributes)
    return lines


def commands(
    verb: str, prefixes: Iterable[Prefix], bgp: Bgp, longer_by: int = 0, communities: Sequence[tuple[int, int]] = ()
) -> list[str]:
    """Return ``announce`` or ``withdraw`` commands with many prefixes each: a command costs a turn of ExaBGP's loop.

    ``communities``: those that the routes have beside the ones of all routes.
    """
    attributes = [f"med {bgp.med}"] if bgp.med is not None else []
    if longer_by:  # the complete path, including the AS that is always there
        attributes.append(f"as-path [ {' '.join([str(bgp.number)] * (1 + longer_by))} ]")
    if named := [f"{high}:{low}" for high, low in (*bgp.communities, *communities)]:
        attributes.append(f"community [ {' '.join(named)} ]")
    return [
        f"{verb} attributes {' '.join([f'next-hop {hop}', *attributes])} nlri {' '.join(names[at : at + CHUNK])}"
        for version, hop in ((4, bgp.local), (6, bgp.local6))
        if hop is not None
        for names in [sorted_prefixes(prefixes, version)]
        for at in range(0, len(names), CHUNK)
    ]


@dataclass
class Session:
    """The state of a session, from ExaBGP's events.

    A peer that has sent a notification often refuses connections for a while.  The notification therefore stays the
    reason until the session is up or another notification arrives.
    """

    state: str = "down"
    up_since: float | None = None
    reason: str = ""
    _is_notified: bool = False

    def update(self, event: Mapping[str, Any], now: float) -> None:
        neighbour = event["neighbor"]
        if event["type"] == "notification":
            sent = neighbour["notification"]
            data = bytes.fromhex(str(sent["data"]).removeprefix("0x"))
            self._notified("received", words(int(sent["code"]), int(sent["subcode"]), data))
        elif event["type"] == "fsm":
            self.state = str(neighbour["state"]).lower()
        elif event["type"] == "state" and neighbour["state"] == "up":
            self.state, self.up_since, self.reason, self._is_notified = ESTABLISHED, now, "", False
        elif event["type"] == "state" and neighbour["state"] == "down":
            self._went_down(str(neighbour.get("reason", "")))

    def _went_down(self, why: str) -> None:
        self.up_since, self.state = None, "idle"
        if (match := NOTIFICATION.fullmatch(why)) is not None:
            if match[1] == "sent" or not self._is_notified:  # a received notification was logged with its text
                self._notified(match[1], words(int(match[2]), int(match[3])))
        elif not self._is_notified:
            self.reason = "connection refused, closed or lost" if why == DROPPED else why

    def _notified(self, way: str, text: str) -> None:
        self.reason, self._is_notified = f"notification {way}: {text}", True


class Exabgp:
    """ExaBGP as the speaker: a `Speaker` that is controlled through a relay process."""

    name = "exabgp"
    environment: Mapping[str, str] = {
        "exabgp_daemon_drop": "false",
        "exabgp_daemon_user": "root",  # as root: changing the user would need a capability
        "exabgp_api_terminate": "true",
        "exabgp_api_cli": "false",
        "exabgp_api_ack": "false",
        "exabgp_log_level": "WARNING",
    }

    capabilities: Collection[Capability] = ()
    """None: it connects to the peers and does not listen."""

    def __init__(self, bgp: Bgp, directory: Path) -> None:
        self._bgp, self._directory = bgp, directory
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._sessions = {str(peer.address): Session() for peer in bgp.peers}
        self._routes: frozenset[Route] = frozenset()

    def command(self) -> list[str]:
        if importlib.util.find_spec("exabgp") is None:
            raise SetupError("BGP speaker exabgp", "not installed", "pip install 'lbmux[bgp]', or --bgp-speaker bird")
        return [sys.executable, "-m", "exabgp", "server", str(self._directory / "exabgp.conf")]

    async def prepare(self, routes: frozenset[Route]) -> None:
        """Write the configuration and listen for the relay, which gets the routes when it connects."""
        await self.close()
        self._routes = routes
        write_private(self._directory / "exabgp.conf", configuration(self._bgp, self._directory))
        path = self._directory / "api.sock"
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path)

    async def change(self, before: frozenset[Route], after: frozenset[Route]) -> None:
        self._routes = after
        if self._writer is None:  # the speaker gets the routes when it connects
            return
        self._send(change_commands(before, after, self._bgp))
        await self._writer.drain()

    async def neighbours(self) -> list[Neighbour]:
        now, results = time.monotonic(), []
        for peer in self._bgp.peers:
            seen = self._sessions[str(peer.address)]
            uptime_s = None if seen.up_since is None else round(now - seen.up_since, 3)
            prefixes = 0 if uptime_s is None else len(self._routes)
            results.append(
                Neighbour(str(peer.address), peer.number, seen.state, uptime_s, prefixes, reason=seen.reason)
            )
        return results

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()
        self._server = self._writer = None

    def _send(self, lines: list[str]) -> None:
        assert self._writer is not None
        self._writer.write("".join(f"{line}\n" for line in lines).encode())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._send(change_commands(frozenset(), self._routes, self._bgp))
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self._handle(line)
        self._sessions = {address: Session() for address in self._sessions}
        if self._writer is writer:
            self._writer = None
        writer.close()

    def _handle(self, line: bytes) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            event = json.loads(line)
            self._sessions[event["neighbor"]["address"]["peer"]].update(event, time.monotonic())
