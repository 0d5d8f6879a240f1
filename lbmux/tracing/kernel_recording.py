"""Records frames that the kernel programs forward or drop, while trace clients are connected."""

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
"""Interval at which the kernel programs get a new budget of frames, in seconds."""


class KernelRecording:
    """Records frames of ``programs``: ``on_frame`` gets each frame, ``on_skipped`` the number beyond the budget."""

    def __init__(
        self,
        kernel: Kernel,
        programs: Mapping[Attach, str],
        frames_a_second: int,
        on_frame: Callable[[TapRecord], None],
        on_skipped: Callable[[int], None],
    ) -> None:
        self._kernel, self._programs = kernel, programs
        self._budget = max(1, round(frames_a_second * REFILL_S))
        self._on_frame, self._on_skipped = on_frame, on_skipped
        self._recorder: TapReader | None = None
        self._refilling: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()

    async def follow(self, prefilters: Iterable[Prefilter]) -> str:
        """Record the frames that pass one of these prefilters; return why that is impossible, or an empty string."""
        wanted = list(prefilters)
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
                log.warning("cannot record frames of the kernel programs: %s", str(error).splitlines()[0])
                return str(error).splitlines()[0]
        return ""

    async def _begin(self) -> None:
        making = asyncio.create_task(asyncio.to_thread(TapReader, self._kernel, self._programs))
        try:
            self._recorder = await asyncio.shield(making)
        except asyncio.CancelledError:  # the daemon stops: detach the tap
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
            self._on_frame(recorded)

    async def _refill_on(self) -> None:
        while True:
            await asyncio.sleep(REFILL_S)
            self._refill()

    def _refill(self) -> None:
        assert self._recorder is not None
        self._on_skipped(self._recorder.allow(self._budget))
