"""The announcer with a real watchdog, and a speaker that is only a process."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from lbmux.bgp.announced import Announced, BgpState, Commands, announced_routes
from lbmux.bgp.announcer import AGAIN_S, Announcer
from lbmux.bgp.bgp_settings import Neighbour, Route
from lbmux.bgp.session_log import NO_REASON
from lbmux.bgp.speaker_watchdog import OVERLOADED_TIMES
from lbmux.linux.capabilities import Capability, effective

SILENCE_S, STALL_S = 0.2, 2.0
VIPS = frozenset({Route(ip_network("192.0.2.1"))})
LIVES = "import time; time.sleep(60)"


class FakeSpeaker:
    """Counts how often it is started; ``change`` takes ``slow_s``."""

    name = "fake"
    environment: Mapping[str, str] = {}
    capabilities: Collection[Capability] = ()

    def __init__(self, code: str = LIVES, slow_s: float = 0.0) -> None:
        self._code, self._slow_s = code, slow_s
        self.starts = 0
        self.sessions = list[Neighbour]()
        self.announced: list[frozenset[Route]] = []

    def command(self) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", self._code]

    async def prepare(self, routes: frozenset[Route]) -> None:
        self.starts += 1

    async def change(self, before: frozenset[Route], after: frozenset[Route]) -> None:
        await asyncio.sleep(self._slow_s)
        self.announced.append(after)

    async def neighbours(self) -> list[Neighbour]:
        return self.sessions

    async def close(self) -> None:
        return


async def until(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.slow
def test_a_slow_speaker_is_waited_for_and_not_killed(tmp_path: Path) -> None:
    speaker = FakeSpeaker(slow_s=5 * SILENCE_S)

    async def run() -> None:
        async with Announcer(speaker, tmp_path / "bgp", silence_s=SILENCE_S) as announcer:
            await announcer.announce(VIPS)
            await asyncio.sleep(2 * SILENCE_S + AGAIN_S)

    asyncio.run(run())
    assert speaker.announced == [VIPS] and speaker.starts == 1


@pytest.mark.slow
def test_a_stalled_mux_loses_its_speaker_until_it_makes_progress(tmp_path: Path) -> None:
    speaker, made_progress = FakeSpeaker(), True

    async def run() -> None:
        nonlocal made_progress
        announcer = Announcer(speaker, tmp_path / "bgp", alive=lambda: made_progress, silence_s=SILENCE_S)
        async with announcer:
            await announcer.announce(VIPS)
            made_progress = False
            await asyncio.sleep(3 * SILENCE_S + 2 * AGAIN_S)
            assert (await announcer.state()).prefixes == []
            assert speaker.starts == 1 and speaker.announced == [VIPS]
            made_progress = True
            await until(lambda: speaker.announced == [VIPS, VIPS])

    asyncio.run(run())
    assert speaker.starts == 2


@pytest.mark.slow
def test_while_the_kernel_forwards_a_stalled_loop_keeps_its_speaker_for_a_time(tmp_path: Path) -> None:
    speaker, made_progress = FakeSpeaker(), True

    async def run() -> None:
        nonlocal made_progress
        announcer = Announcer(
            speaker, tmp_path / "bgp", alive=lambda: made_progress, silence_s=SILENCE_S, stall_s=STALL_S,
            forwards=lambda: True,
        )  # fmt: skip
        async with announcer:
            await announcer.announce(VIPS)
            await asyncio.sleep(0.2)
            made_progress = False
            await asyncio.sleep(STALL_S / 2)
            assert (await announcer.state()).prefixes == ["192.0.2.1/32"]
            async with asyncio.timeout(3 * STALL_S):
                while (await announcer.state()).prefixes:
                    await asyncio.sleep(0.05)
            made_progress = True
            await until(lambda: speaker.starts == 2)

    asyncio.run(run())


def test_an_overloaded_mux_keeps_its_speaker_while_its_loop_is_late(tmp_path: Path) -> None:
    """A dead mux needs no heartbeat: its watchdog's standard input ends."""
    speaker, made_progress = FakeSpeaker(), True

    async def run() -> None:
        nonlocal made_progress
        announcer = Announcer(
            speaker, tmp_path / "bgp", alive=lambda: made_progress, silence_s=SILENCE_S, overloaded=lambda: True
        )
        async with announcer:
            await announcer.announce(VIPS)
            await asyncio.sleep(0.2)
            made_progress = False
            await asyncio.sleep(2 * SILENCE_S)
            assert (await announcer.state()).prefixes == ["192.0.2.1/32"]
            async with asyncio.timeout(10 * OVERLOADED_TIMES * SILENCE_S):
                while (await announcer.state()).prefixes:
                    await asyncio.sleep(0.05)

    asyncio.run(run())


def test_a_command_changes_what_is_announced_until_the_next_one(tmp_path: Path) -> None:
    speaker = FakeSpeaker()

    async def run() -> None:
        async with Announcer(speaker, tmp_path / "bgp", silence_s=SILENCE_S) as announcer:
            await announcer.announce(VIPS)
            for changes in (Announced(prepended=2), Announced(length=24), Announced(is_held=True), Announced()):
                commands: Commands = {None: changes}
                state = await announcer.command(commands)
                assert state.commands == commands and speaker.announced[-1] == announced_routes(commands, VIPS)

    asyncio.run(run())
    assert len(speaker.announced) == 5 and speaker.announced[-1] == VIPS


def test_sessions_are_down_while_no_speaker_runs(tmp_path: Path) -> None:
    speaker = FakeSpeaker("raise SystemExit('no such option')")
    speaker.sessions = [Neighbour("10.0.1.1", 64512, "established", 3.0, 1)]

    async def run() -> BgpState:
        async with Announcer(speaker, tmp_path / "bgp", silence_s=SILENCE_S) as announcer:
            async with asyncio.timeout(10):
                while (state := await announcer.state()).neighbours[0].state != "down":
                    await asyncio.sleep(0.01)
            return state

    (session,) = asyncio.run(run()).neighbours
    assert session.reason == "the speaker is not running: no such option"


def test_a_session_that_is_down_always_has_a_reason(tmp_path: Path) -> None:
    speaker = FakeSpeaker(LIVES)
    up, silent = Neighbour("10.0.1.1", 64512, "established", 3.0, 1), Neighbour("10.0.2.1", 64512, "idle")
    speaker.sessions = [up, silent, replace(silent, reason="connection refused")]

    async def run() -> BgpState:
        async with Announcer(speaker, tmp_path / "bgp", silence_s=SILENCE_S) as announcer:
            return await announcer.state()

    assert [one.reason for one in asyncio.run(run()).neighbours] == ["", NO_REASON, "connection refused"]


@pytest.mark.slow
def test_a_speaker_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    speaker, tries = FakeSpeaker("pass"), 0  # it ends at once

    async def full(routes: frozenset[Route]) -> None:
        nonlocal tries
        tries += 1
        raise OSError(28, "No space left on device")

    async def run() -> None:
        async with Announcer(speaker, tmp_path / "bgp", silence_s=SILENCE_S) as announcer:
            with monkeypatch.context() as patched:
                patched.setattr(speaker, "prepare", full)
                speaker.sessions = [Neighbour("10.0.1.1", 64512, "idle")]
                await until(lambda: tries == 2, 10)
                assert "No space left" in (await announcer.state()).neighbours[0].reason
            await until(lambda: speaker.starts == 2)

    asyncio.run(run())
    assert [one.message.startswith("BGP speaker fake: it cannot be started") for one in caplog.records].count(True) == 1


def test_a_speaker_that_takes_no_changes_is_logged_after_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lbmux.bgp.announcer.PATIENCE_S", 0.1)
    caplog.set_level(logging.WARNING, "lbmux.bgp.announcer")
    speaker = FakeSpeaker()

    async def refuses(before: frozenset[Route], after: frozenset[Route]) -> None:
        raise OSError("bird: configuration failed")

    async def run() -> None:
        async with Announcer(speaker, tmp_path / "bgp", silence_s=60.0) as announcer:
            with monkeypatch.context() as patched:
                patched.setattr(speaker, "change", refuses)
                begun = time.time()
                await announcer.announce(VIPS)
                await until(lambda: bool(caplog.records))
                assert caplog.records[0].created - begun >= 0.1
            await until(lambda: speaker.announced == [VIPS])

    asyncio.run(run())
    (record,) = caplog.records
    assert record.message == "BGP: routers do not learn changes of routes: fake: bird: configuration failed"


@pytest.mark.slow
def test_a_speaker_that_exits_is_restarted_and_gets_its_routes_again(tmp_path: Path) -> None:
    mark = tmp_path / "was-here"
    ends_once = f"import os, time; p = {str(mark)!r}; os.path.exists(p) and time.sleep(60); open(p, 'w').close()"
    speaker = FakeSpeaker(ends_once)

    async def run() -> None:
        async with Announcer(speaker, tmp_path / "bgp", silence_s=SILENCE_S) as announcer:
            await announcer.announce(VIPS)
            await until(lambda: speaker.starts == 2)
            await until(lambda: speaker.announced[-1:] == [VIPS] and len(speaker.announced) == 2)
            await asyncio.sleep(2 * AGAIN_S)
            assert (await announcer.state()).prefixes == ["192.0.2.1/32"]

    asyncio.run(run())
    assert speaker.starts == 2


def test_the_speaker_sees_nothing_of_the_mux_and_has_few_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    seen = tmp_path / "seen"
    shows = f"import os, shutil; print(sorted(os.environ)); shutil.copy('/proc/self/status', {str(seen)!r})"
    speaker = FakeSpeaker(f"{shows}; print('written', flush=True); {LIVES}")
    speaker.capabilities = (Capability.NET_BIND_SERVICE,)
    output = tmp_path / "bgp" / "speaker.log"

    async def run() -> str:
        async with Announcer(speaker, tmp_path / "bgp"):
            await until(lambda: output.exists() and "written" in output.read_text())
            return output.read_text()

    environment = asyncio.run(run())
    assert "PATH" in environment and "SECRET" not in environment
    rights = next(line.split()[1] for line in seen.read_text().splitlines() if line.startswith("CapEff"))
    assert int(rights, 16) == effective() & 1 << Capability.NET_BIND_SERVICE
