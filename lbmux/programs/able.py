"""Whether a mux can forward: by what it opened at its start, which may go away under it."""

import logging
import socket
from dataclasses import dataclass

from lbmux.programs.announcing import is_up
from lbmux.programs.drivers import Driver

log = logging.getLogger(__name__)


@dataclass
class Able:
    """``index``: of the interface that the ring is bound to; another one of its name is not read.

    ``insists``: on the kernel's program.  Else user space goes on with the same tables where that was taken off.
    """

    interface: str
    index: int
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
        if not is_up(self.interface):
            return f"interface {self.interface} is not up"
        if _index(self.interface) != self.index:
            return f"interface {self.interface} was made anew: start the mux again"
        kernel = self.driver.kernel
        if self.insists and kernel is not None and not kernel.is_attached():
            return f"the program was taken off interface {self.interface}: start the mux again"
        return ""


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0
