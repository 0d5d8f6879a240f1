"""The announcer: runs a BGP speaker under a watchdog process, and announces routes through it.

While the packet loop makes progress, the announcer sends heartbeats to the watchdog from the mux's event loop.  If
either loop stalls, the watchdog kills the speaker, which withdraws the routes. Heartbeats never wait, not even for the
speaker. While the kernel program forwards, the routes of a stalled packet loop stay for longer, because only punted
packets are lost. The announcer restarts a speaker that has ended.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

from lbmux.bgp import speaker_watchdog
from lbmux.bgp.announced import UNCHANGED, BgpState, Commands, announced_routes, described
from lbmux.bgp.bgp_settings import Bgp, Neighbour, Route, sorted_prefixes
from lbmux.bgp.bird import Bird
from lbmux.bgp.exabgp import Exabgp
from lbmux.bgp.session_log import NO_REASON, PATIENCE_S, SessionLog
from lbmux.bgp.speaker import Speaker
from lbmux.linux.capabilities import command_with_only
from lbmux.linux.child_environment import BARE
from lbmux.linux.tcp_md5 import PasswordCheck
from lbmux.plurals import counted

log = logging.getLogger(__name__)

SPEAKERS: dict[str, Callable[[Bgp, Path], Speaker]] = {"exabgp": Exabgp, "bird": Bird}
BEAT_S = 0.02
SILENCE_S, STALL_S = 0.2, 5.0
AGAIN_S = 0.5
"""Pause between the end of a speaker and its restart, in seconds."""
NOTHING: frozenset[Route] = frozenset()


WATCH_S = 1.0
"""Interval at which sessions are checked for the log, in seconds."""
REPEAT_S = 60.0
"""Interval at which a speaker that accepts no changes is logged, in seconds."""


def always() -> bool:
    return True


def never() -> bool:
    return False


class Announcer:
    """Announces routes while ``can_forward()`` is true.

    ``alive()`` is called every BEAT_S and returns whether the packet loop has made progress since the last call. The
    speaker is killed after ``silence_s`` without progress, or after ``stall_s`` if the kernel forwards
    (``forwards()``); while the mux gets too many packets (``overloaded()``), a few more ``silence_s`` later.
    """

    def __init__(
        self, speaker: Speaker, directory: Path, can_forward: Callable[[], bool] = always, alive: Callable[[],
        bool] = always,
        silence_s: float = SILENCE_S, stall_s: float = STALL_S, forwards: Callable[[], bool] = never,
        overloaded: Callable[[], bool] = never,
    ) -> None:  # fmt: skip
        self._speaker, self._directory = speaker, directory
        self._can_forward, self._alive, self._overloaded, self._silence_s = can_forward, alive, overloaded, silence_s
        self._stall_s, self._forwards, self._ended = max(silence_s, stall_s), forwards, "it has not started yet"
        self._heartbeat = speaker_watchdog.ALIVE
        self._is_alive = asyncio.Event()
        """Set while the last result of ``alive`` was true."""
        self._command = speaker.command()  # raises if there is none, before anything is started
        self._wanted = self._announced = self._with_command = NOTHING
        """What is wanted, what the speaker has, and what is wanted with the changes by command."""
        self.commands: Commands = {}
        """An operator's changes; they apply from the next call of ``announce`` or ``command``."""
        self._passwords = PasswordCheck()
        self._log_refusal_s: float | None = None
        """When the next refused change is logged; None while the speaker takes changes."""
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        await self._start()
        self._tasks = [asyncio.create_task(work()) for work in (self._beat, self._follow, self._supervise, self._watch)]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watchdog is not None:
            assert self._watchdog.stdin is not None
            self._watchdog.stdin.close()
            await asyncio.to_thread(self._watchdog.wait)
        await self._speaker.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def announce(self, routes: frozenset[Route]) -> None:
        """Announce these routes, and withdraw all others."""
        self._wanted, self._with_command = routes, announced_routes(self.commands, routes)
        await self._update()

    async def withdraw(self) -> None:
        await self.announce(NOTHING)

    async def command(self, commands: Commands) -> BgpState:
        """Announce, withdraw or change routes by command; returns the state when the speaker has the change."""
        self.commands, self._with_command = commands, announced_routes(commands, self._wanted)
        log.info("BGP: %s by command", _describe_commands(commands))
        await self._update()
        return await self.state()

    async def state(self) -> BgpState:
        """Return the state; each session that is down has a reason."""
        sessions = await self._sessions()
        explained = [one if one.is_up else replace(one, reason=one.reason or NO_REASON) for one in sessions]
        return BgpState(self._speaker.name, self._announced, explained, self.commands)

    async def _sessions(self) -> list[Neighbour]:
        """Return the sessions; while no speaker runs, all are down, with the reason for its end.

        The kernel drops segments with a wrong password, so it has the reason of a session for which no speaker has one.
        """
        sessions = await self._speaker.neighbours()
        if self._watchdog is None:
            why = f"the speaker is not running: {self._ended}"
            return [replace(one, state="down", uptime_s=None, prefixes=0, reason=why) for one in sessions]
        why = self._passwords.reason(time.monotonic())
        return [one if one.is_up or one.reason else replace(one, reason=why) for one in sessions]

    async def _watch(self) -> None:
        """Log changes of sessions, and update whether the kernel forwards, which takes system calls to find out."""
        seen = SessionLog()
        while True:
            self._heartbeat = speaker_watchdog.PATIENT if self._forwards() else speaker_watchdog.ALIVE
            with contextlib.suppress(OSError):
                for level, line in seen.changes(await self._sessions(), time.monotonic()):
                    log.log(level, "%s", line)
            await asyncio.sleep(WATCH_S)

    async def _update(self) -> None:
        """Send the changes to the speaker; if it cannot be reached, the next call tries again."""
        async with self._lock:
            after = self._with_command if self._can_forward() else NOTHING
            if self._watchdog is None or after is self._announced or after == self._announced:  # None: not started yet
                return
            try:
                await self._speaker.change(self._announced, after)
            except OSError as error:
                self._log_refusal(error, time.monotonic())
                return
            before, self._announced, self._log_refusal_s = self._announced, after, None
        for line in _describe_changes(before, after):
            log.info("BGP: %s", line)

    def _log_refusal(self, error: OSError, now: float) -> None:
        """Log that the speaker does not take changes, unless it may still be starting."""
        if self._log_refusal_s is None:
            self._log_refusal_s = now + PATIENCE_S
        if now >= self._log_refusal_s:
            self._log_refusal_s = now + REPEAT_S
            log.warning("BGP: routers do not learn changes of routes: %s: %s", self._speaker.name, error or "timeout")

    async def _start(self) -> None:
        self._announced = NOTHING
        await self._speaker.prepare(NOTHING)
        times = map(str, (self._silence_s, self._stall_s))
        watchdog = [sys.executable, "-I", "-S", speaker_watchdog.__file__, *times, *self._command]
        with (self._directory / "speaker.log").open("wb") as output:
            self._watchdog = subprocess.Popen(
                command_with_only(self._speaker.capabilities, watchdog),
                stdin=subprocess.PIPE, stdout=output, stderr=output, bufsize=0,
                env={**BARE, **self._speaker.environment},
            )  # fmt: skip
        assert self._watchdog.stdin is not None
        os.set_blocking(self._watchdog.stdin.fileno(), False)

    async def _beat(self) -> None:
        while True:
            if self._alive():
                self._is_alive.set()
                self._send_heartbeat()
            else:
                self._is_alive.clear()
            await asyncio.sleep(BEAT_S)

    def _send_heartbeat(self) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                is_late = self._heartbeat == speaker_watchdog.ALIVE and self._overloaded()
                self._watchdog.stdin.write(speaker_watchdog.OVERLOADED if is_late else self._heartbeat)

    async def _follow(self) -> None:
        """Announce the wanted routes as soon as the mux can forward and the speaker listens."""
        while True:
            await self._update()
            await asyncio.sleep(BEAT_S)

    async def _supervise(self) -> None:
        """Start a speaker that has ended again, until it can be started."""
        while True:
            await asyncio.sleep(BEAT_S)
            if self._watchdog is not None:
                code = self._watchdog.poll()
                if code is None:
                    continue
                self._ended = self._why(code)
                log.warning("BGP speaker %s ended: %s", self._speaker.name, self._ended)
                async with self._lock:
                    self._watchdog, self._announced = None, NOTHING
            await asyncio.sleep(AGAIN_S)
            await self._is_alive.wait()
            async with self._lock:
                await self._start_again()

    def _why(self, code: int) -> str:
        """Return why the speaker has ended: the last line of its log, if it has one."""
        if code == speaker_watchdog.SILENT:
            return "the packet loop stalled"
        with contextlib.suppress(OSError, IndexError):
            return (self._directory / "speaker.log").read_text(errors="replace").strip().splitlines()[-1]
        return f"code {code}"

    async def _start_again(self) -> None:
        try:
            await self._start()
        except OSError as error:
            why = f"it cannot be started: {error}"
            if why != self._ended:
                log.warning("BGP speaker %s: %s", self._speaker.name, why)
            self._ended = why


def _describe_commands(commands: Commands) -> str:
    return "; ".join(f"{vip or 'all VIPs'} {described(one)}" for vip, one in {None: UNCHANGED, **commands}.items())


def _describe_changes(before: frozenset[Route], after: frozenset[Route]) -> Iterator[str]:
    """Describe the differences between two sets of routes, for the log."""
    were, are = {route.prefix for route in before}, {route.prefix for route in after}
    if were != are:
        yield f"{counted(len(are - were), 'prefix', 'prefixes')} announced, {len(were - are)} withdrawn"
    kept = [route for route in after - before if route.prefix in were]
    changed = sorted_prefixes(route.prefix for route in kept if route.is_last_resort)
    if changed:
        yield f"no backend: announced as a last resort, with a longer AS path: {', '.join(changed)}"
    last = {route.prefix for route in before if route.is_last_resort}
    again = sorted_prefixes(route.prefix for route in kept if not route.is_last_resort and route.prefix in last)
    if again:
        yield f"backends are back: {', '.join(again)}"
