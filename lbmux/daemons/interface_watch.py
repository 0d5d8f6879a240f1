"""Watches the daemon's interface: notices when it vanishes, and opens it again when it was recreated.

While it is gone, the daemon neither receives nor sends, and costs no CPU time.  libuv stops polling a descriptor that
has an error, such as a packet socket whose interface went down, so polling starts again with every link event.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from lbmux.daemons.drivers import Driver
from lbmux.errors import LbmuxError
from lbmux.frames.packet_ring import PacketRing
from lbmux.linux.network_events import LINKS, NetworkEvents
from lbmux.linux.offloads import switch_off_super_frames

log = logging.getLogger(__name__)

RETRY_S = 1.0


class InterfaceWatch:
    """``about`` gets ``interface_state`` for `lbmux show runtime`: present, gone, or an error.

    ``read`` is called when a ring has frames, ``reopened`` when a recreated interface was opened.
    """

    def __init__(
        self,
        ring: PacketRing,
        driver: Driver,
        about: dict[str, Any],
        read: Callable[[], None],
        reopened: Callable[[], Awaitable[None]] | None = None,
        others: Sequence[PacketRing] = (),
    ) -> None:
        """``others``: further rings of the same interface."""
        self._ring, self._driver, self._about, self._read, self._reopened = ring, driver, about, read, reopened
        self._rings = (*others, ring)
        about["interface_state"] = "present"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Enter it after the driver has started."""
        try:
            async with NetworkEvents(LINKS, self.refresh):
                await self.refresh()
                yield
        finally:
            for ring in self._rings:
                asyncio.get_running_loop().remove_reader(ring.fileno())

    async def refresh(self) -> None:
        await self._open()
        loop = asyncio.get_running_loop()
        for descriptor in (ring.fileno() for ring in self._rings):
            loop.remove_reader(descriptor)
            loop.add_reader(descriptor, self._read)

    async def _open(self) -> None:
        while True:
            index = interface_index(self._ring.interface)
            if index == 0:
                self._tell("gone", "is gone: nothing is received until an interface of that name exists again")
                return
            if index == self._ring.index:
                self._about["interface_state"] = "present"
                return
            try:
                await asyncio.to_thread(self._reopen)
            except (LbmuxError, OSError) as error:
                self._tell(str(error), f"was recreated, and cannot be opened: {error}")
                await asyncio.sleep(RETRY_S)
            else:
                log.warning("interface %s was recreated: opened again", self._ring.interface)
                if self._reopened is not None:
                    await self._reopened()

    def _reopen(self) -> None:
        """Open the recreated interface. The ring comes last, because its index says that the interface is open."""
        switch_off_super_frames(self._ring.interface)
        if self._driver.kernel is not None:
            self._driver.kernel.reattach()
        for ring in self._rings:
            ring.rebind()

    def _tell(self, state: str, what: str) -> None:
        if self._about["interface_state"] != state:
            log.error("interface %s %s", self._ring.interface, what)
        self._about["interface_state"] = state


def interface_index(interface: str) -> int:
    """Return the kernel's index of an interface; 0 if there is none of this name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0
