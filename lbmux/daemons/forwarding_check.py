"""Checks whether a mux can forward: its interface or its programs may have disappeared."""

import logging
from dataclasses import dataclass

from lbmux.daemons.announcement import is_up
from lbmux.daemons.drivers import Driver
from lbmux.daemons.interface_watch import interface_index
from lbmux.frames.packet_ring import PacketRing

log = logging.getLogger(__name__)


@dataclass
class ForwardingCheck:
    """True while the mux can forward; logs the reason when it no longer can.

    ``ring`` is bound to one interface: a recreated one of the same name is not read until it is opened.
    ``insists``: the kernel's program has to be attached.  Otherwise user space forwards with the same tables.
    """

    ring: PacketRing
    driver: Driver
    insists: bool
    logged: str = ""

    def __call__(self) -> bool:
        why = self._why_not()
        if why and why != self.logged:
            log.error("cannot forward: %s", why)
        self.logged = why
        return not why

    def _why_not(self) -> str:
        name = self.ring.interface
        if not is_up(name):
            return f"interface {name} is not up"
        if interface_index(name) != self.ring.index:
            return f"interface {name} was recreated, and is not open yet"
        kernel = self.driver.kernel
        if self.insists and kernel is not None and not kernel.is_attached():
            return f"the program was detached from interface {name}: restart the mux"
        return ""
