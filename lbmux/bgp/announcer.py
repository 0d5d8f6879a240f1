"""The announcer: a speaker, a process that keeps it, and what is to be announced.

It gives the keeper a sign of life from the mux's own event loop while the mux's packet loop gets on, so what keeps
either from running withdraws the routes too; and it starts the speaker again when that has ended.  The sign waits for
nothing, least of all for the speaker.  While the kernel's program forwards, a stalled packet loop keeps the routes for
a time: only packets that the program punts are lost.
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
from typing import Any, Self

from lbmux.bgp import speaker_watchdog
from lbmux.bgp.bgp_settings import Bgp, Neighbour, Route, describe, in_order
from lbmux.bgp.bird import Bird
from lbmux.bgp.exabgp import Exabgp
from lbmux.bgp.speaker import Speaker
from lbmux.bgp.watch import SessionLog
from lbmux.plurals import counted

log = logging.getLogger(__name__)

SPEAKERS: dict[str, Callable[[Bgp, Path], Speaker]] = {"exabgp": Exabgp, "bird": Bird}
BEAT_S = 0.02
SILENCE_S, STALL_S = 0.2, 5.0
AGAIN_S = 0.5
"""Between the end of a speaker and its next start."""
NOTHING: frozenset[Route] = frozenset()


WATCH_S = 1.0
"""Between two looks at the sessions, for the log."""


def always() -> bool:
    return True


def never() -> bool:
    return False


class Announcer:
    """``can_forward`` says whether the mux can forward; while it cannot, nothing is announced.  ``alive``,
    asked every BEAT_S,
    whether it has got on since it was asked last; without that for ``silence_s`` the speaker is killed, or for
    ``stall_s`` if the kernel forwards (``forwards``)."""

    def __init__(
        self, speaker: Speaker, directory: Path, can_forward: Callable[[], bool] = always, alive: Callable[[],
        bool] = always,
        silence_s: float = SILENCE_S, stall_s: float = STALL_S, forwards: Callable[[], bool] = never,
    ) -> None:  # fmt: skip
        self._speaker, self._directory = speaker, directory
        self._can_forward, self._alive, self._silence_s = can_forward, alive, silence_s
        self._stall_s, self._forwards, self._ended = max(silence_s, stall_s), forwards, "it has not started yet"
        self._life_sign = speaker_watchdog.ALIVE
        self._lives = asyncio.Event()
        """Set while the last answer of ``alive`` was yes."""
        self._command = speaker.command()  # raises where there is none, before anything was done
        self._wanted = self._told = NOTHING
        self._held = False
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
        """Announce these, and withdraw what else was announced."""
        self._wanted = routes
        await self._update()

    async def withdraw(self) -> None:
        await self.announce(NOTHING)

    async def hold(self, held: bool) -> dict[str, Any]:
        """By command: announce nothing whatever is wanted, or again what is; answered when the speaker was told."""
        self._held = held
        log.info("BGP: %s by command", "withdrawn" if held else "announced again")
        await self._update()
        return await self.state()

    async def state(self) -> dict[str, Any]:
        return describe(self._speaker.name, self._told, await self._sessions()) | {"held": self._held}

    def handlers(self) -> dict[str, Any]:
        """Of a control socket."""
        return {"bgp": self.state, "hold": self.hold}

    async def _sessions(self) -> list[Neighbour]:
        """As the speaker says; while none runs they are down for the reason that it ended by."""
        sessions = await self._speaker.neighbours()
        if self._watchdog is None:
            why = f"the speaker does not run: {self._ended}"
            return [replace(one, state="down", uptime_s=None, prefixes=0, reason=why) for one in sessions]
        return sessions

    async def _watch(self) -> None:
        """Log what becomes of the sessions; and whether the kernel forwards, which takes system calls to know."""
        seen = SessionLog(self._speaker.name)
        while True:
            self._life_sign = speaker_watchdog.PATIENT if self._forwards() else speaker_watchdog.ALIVE
            with contextlib.suppress(OSError):
                for level, line in seen.changes(await self._sessions(), time.monotonic()):
                    log.log(level, "%s", line)
            await asyncio.sleep(WATCH_S)

    async def _update(self) -> None:
        """Tell the speaker what has changed; a speaker that cannot be reached is told when it can."""
        async with self._lock:
            after = self._wanted if self._can_forward() and not self._held else NOTHING
            if after == self._told or self._watchdog is None:  # not started yet
                return
            try:
                await self._speaker.change(self._told, after)
            except (OSError, TimeoutError) as error:
                log.debug("BGP speaker not reached: %s", error)
                return
            before, self._told = self._told, after
        for line in _said(before, after):
            log.info("BGP: %s", line)

    async def _start(self) -> None:
        self._told = NOTHING
        await self._speaker.prepare(NOTHING)
        times = map(str, (self._silence_s, self._stall_s))
        arguments = [sys.executable, "-I", "-S", speaker_watchdog.__file__, *times, *self._command]
        with (self._directory / "speaker.log").open("wb") as output:
            # By this thread, the event loop's, which lives as long as the mux: the kernel looks at the thread's end.
            self._watchdog = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=output, stderr=output, bufsize=0,
                env=os.environ | self._speaker.environment, preexec_fn=speaker_watchdog.dies_with_parent(),
            )  # fmt: skip
        assert self._watchdog.stdin is not None
        os.set_blocking(self._watchdog.stdin.fileno(), False)

    async def _beat(self) -> None:
        while True:
            if self._alive():
                self._lives.set()
                self._sign()
            else:
                self._lives.clear()
            await asyncio.sleep(BEAT_S)

    def _sign(self) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self._watchdog.stdin.write(self._life_sign)

    async def _follow(self) -> None:
        """What is wanted, as soon as the mux is able and the speaker listens."""
        while True:
            await self._update()
            await asyncio.sleep(BEAT_S)

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            code = self._watchdog.poll() if self._watchdog is not None else None
            if code is None:
                continue
            text = (self._directory / "speaker.log").read_text(errors="replace").strip().splitlines()
            why = (
                "the packet loop was stuck"
                if code == speaker_watchdog.SILENT
                else (text[-1] if text else f"code {code}")
            )
            log.warning("BGP speaker %s ended: %s", self._speaker.name, why)
            self._ended = why
            async with self._lock:
                self._watchdog, self._told = None, NOTHING
            await asyncio.sleep(AGAIN_S)
            await self._lives.wait()
            async with self._lock:
                await self._start()


def _said(before: frozenset[Route], after: frozenset[Route]) -> Iterator[str]:
    """What has changed, for the log."""
    were, are = {route.prefix for route in before}, {route.prefix for route in after}
    if were != are:
        yield f"{counted(len(are - were), 'prefix', 'prefixes')} announced, {len(were - are)} withdrawn"
    changed = in_order(route.prefix for route in after - before if route.prefix in were and route.is_last_resort)
    if changed:
        yield f"no backend: announced as a last resort, with a longer path: {', '.join(changed)}"
    again = in_order(route.prefix for route in after - before if route.prefix in were and not route.is_last_resort)
    if again:
        yield f"with backends again: {', '.join(again)}"
