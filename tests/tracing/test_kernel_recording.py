"""Recording what the kernel's programs do: a daemon that stops while the programs for it are being compiled."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import pytest

from lbmux.tracing import kernel_recording
from lbmux.tracing.kernel_recording import KernelRecording


class Slow:
    """Stands for a recorder whose programs take their time."""

    made: list["Slow"]

    def __init__(self, kernel: Any, programs: Mapping[Any, str]) -> None:
        time.sleep(0.2)
        self.attached = True
        self.made.append(self)

    def close(self) -> None:
        self.attached = False


def test_a_daemon_that_stops_meanwhile_leaves_nothing_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    Slow.made = []
    monkeypatch.setattr(kernel_recording, "TapReader", Slow)

    async def stopped_early() -> None:
        double: Any = None
        following = asyncio.create_task(KernelRecording(double, {}, 500, print, print).follow([{}]))
        await asyncio.sleep(0.05)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        assert [one.attached for one in Slow.made] == [False]

    asyncio.run(stopped_early())
