"""The watchdog, which ends the speaker when the mux's heartbeats stop."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lbmux.bgp import speaker_watchdog

SPEAKER = [sys.executable, "-I", "-S", "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]


@contextlib.contextmanager
def kept(silence_s: float, speaker: list[str] = SPEAKER, longer_s: float = 30.0) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-I", "-S", speaker_watchdog.__file__, str(silence_s), str(longer_s), *speaker]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def speaker_of(process: "subprocess.Popen[bytes]") -> int:
    assert process.stdout is not None
    return os.pidfd_open(int(process.stdout.readline()))


def ended(descriptor: int, within_s: float) -> bool:
    import select

    return bool(select.select([descriptor], [], [], within_s)[0])


def test_the_end_of_the_mux_ends_the_speaker() -> None:
    with kept(30) as process:
        speaker = speaker_of(process)
        assert process.stdin is not None
        process.stdin.close()
        assert ended(speaker, 2) and process.wait(2) == 0


@pytest.mark.slow
def test_silence_ends_the_speaker_and_heartbeats_keep_it() -> None:
    with kept(0.5) as process:
        speaker = speaker_of(process)
        assert process.stdin is not None
        for _ in range(10):
            process.stdin.write(b".")
            process.stdin.flush()
            time.sleep(0.1)
        assert not ended(speaker, 0)
        assert ended(speaker, 2) and process.wait(2) == speaker_watchdog.SILENT


@pytest.mark.slow
def test_an_overloaded_mux_may_be_silent_for_longer_and_not_for_ever() -> None:
    with kept(0.3) as process:
        speaker = speaker_of(process)
        assert process.stdin is not None
        process.stdin.write(speaker_watchdog.OVERLOADED)
        process.stdin.flush()
        assert not ended(speaker, 0.8), "longer than without an overload"
        assert ended(speaker, 5) and process.wait(2) == speaker_watchdog.SILENT


@pytest.mark.slow
def test_where_the_kernel_forwards_silence_may_last_longer_and_not_for_ever() -> None:
    with kept(0.2, longer_s=1.5) as process:
        speaker = speaker_of(process)
        assert process.stdin is not None
        process.stdin.write(speaker_watchdog.PATIENT)
        process.stdin.flush()
        assert not ended(speaker, 0.8), "longer than without the kernel's program"
        assert ended(speaker, 3) and process.wait(2) == speaker_watchdog.SILENT


def test_the_last_heartbeat_counts() -> None:
    with kept(0.3) as process:
        speaker = speaker_of(process)
        assert process.stdin is not None
        process.stdin.write(speaker_watchdog.PATIENT + speaker_watchdog.ALIVE)
        process.stdin.flush()
        assert ended(speaker, 2) and process.wait(2) == speaker_watchdog.SILENT


def test_the_speaker_ends_with_a_killed_watchdog() -> None:
    with kept(30) as process:
        speaker = speaker_of(process)
        process.send_signal(signal.SIGKILL)
        assert ended(speaker, 2)


def test_a_speaker_that_exits_is_logged() -> None:
    with kept(30, ["/bin/true"]) as process:
        assert process.wait(5) == speaker_watchdog.ENDED
