"""Whether a mux can forward: by its interface and its programs, which may go away under it."""

import logging
from dataclasses import dataclass

from lbmux.daemons.announcement import is_up
from lbmux.daemons.drivers import Driver
from lbmux.daemons.interface_watch import interface_index
from lbmux.frames.packet_ring import PacketRing

log = logging.getLogger(__name__)


@dataclass
class ForwardingCheck:
    """``ring``: what it is bound to is read; another interface of its name is not, until it was opened again.

    ``insists``: on the kernel's program.  Else user space goes on with the same tables where that was taken off.
    """

    ring: PacketRing
    driver: Driver
    insists: bool
    said: str = ""

    def __call__(self) -> bool:
        why = self._why_not()
        if why and why != self.said:
            log.error("cannot forward: %s", why)
        self.said = why
        return not why

    def _why_not(self) -> str:
        name = self.ring.interface
        if not is_up(name):
            return f"interface {name} is not up"
        if interface_index(name) != self.ring.index:
            return f"interface {name} was recreated, and is not open yet"
        kernel = self.driver.kernel
        if self.insists and kernel is not None and not kernel.is_attached():
            return f"the program was taken off interface {name}: start the mux again"
        return ""
