"""While somebody watches, what the kernel's programs forward or drop by themselves is recorded, too."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from lbmux.errors import LbmuxError
from lbmux.frames.tap_reader import TapReader, TapRecord
from lbmux.frames.xdp import Kernel
from lbmux.targets.bpf.syscall import Attach
from lbmux.tracing.prefilter_builder import EVERYTHING, Prefilter

log = logging.getLogger(__name__)

REFILL_S = 0.1
"""How often the programs are told how many frames they may record."""


class KernelRecording:
    """Of one daemon's ``programs``; ``saw`` gets each frame, and ``skipped`` how many were too many."""

    def __init__(
        self,
        kernel: Kernel,
        programs: Mapping[Attach, str],
        frames_a_second: int,
        saw: Callable[[TapRecord], None],
        skipped: Callable[[int], None],
    ) -> None:
        self._kernel, self._programs = kernel, programs
        self._at_once = max(1, round(frames_a_second * REFILL_S))
        self._saw, self._skipped = saw, skipped
        self._recorder: TapReader | None = None
        self._refilling: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()

    async def follow(self, sieves: Iterable[Prefilter]) -> str:
        """From now on record what one of these wants, and nothing where there is none; why not, where it cannot be."""
        wanted = list(sieves)
        async with self._busy:
            try:
                if not wanted:
                    await self._end()
                    return ""
                if self._recorder is None:
                    await self._begin()
                assert self._recorder is not None
                self._recorder.set_prefilter(wanted[0] if len(wanted) == 1 else EVERYTHING)
                self._refill()
            except LbmuxError as error:
                log.warning("what the kernel's programs forward cannot be recorded: %s", str(error).splitlines()[0])
                return str(error).splitlines()[0]
        return ""

    async def _begin(self) -> None:
        making = asyncio.create_task(asyncio.to_thread(TapReader, self._kernel, self._programs))
        try:
            self._recorder = await asyncio.shield(making)
        except asyncio.CancelledError:  # the daemon stops: what it is about to attach must not stay
            (await making).close()
            raise
        asyncio.get_running_loop().add_reader(self._recorder.fileno(), self._read)
        self._refilling = asyncio.create_task(self._refill_on())

    async def _end(self) -> None:
        if self._recorder is None or self._refilling is None:
            return
        recorder, self._recorder = self._recorder, None
        self._refilling.cancel()
        asyncio.get_running_loop().remove_reader(recorder.fileno())
        recorder.close()

    def _read(self) -> None:
        assert self._recorder is not None
        for recorded in self._recorder.read():
            self._saw(recorded)

    async def _refill_on(self) -> None:
        while True:
            await asyncio.sleep(REFILL_S)
            self._refill()

    def _refill(self) -> None:
        assert self._recorder is not None
        self._skipped(self._recorder.allow(self._at_once))
