"""Keeps a mux's VIPs from the kernel's receive path, so that the kernel does not forward what the mux has taken.

A packet socket gets a copy of each frame, and the kernel's stack gets the frame itself; so does what an XDP program
punts.  Where the host forwards (net.ipv4.ip_forward, as Docker and Kubernetes set it), it would send a VIP's packets
back to the router.  A program at tcx ingress drops them there, after the packet socket has its copy (Linux 6.6).
An address of the host itself passes: it is delivered there, not forwarded.
"""

import os
import socket
import struct
from collections.abc import Collection, Iterable

from lbmux.addresses import Address
from lbmux.targets.bpf import address_filter, pins, syscall
from lbmux.targets.bpf.address_set import AddressSet
from lbmux.targets.bpf.syscall import Attach

COUNTER = struct.Struct("<Q")
PLACE, MODE = Attach.TCX_INGRESS, "tcx"


class VipFilter:
    """The filter on one interface; BpfError where the kernel does not take it."""

    def __init__(self, interface: str, directory: pins.Pins | None = None) -> None:
        """``directory``: where the link is pinned, so that it outlives this process as an XDP program does.

        Without one it goes with the process: then nothing is left that forwards in its stead.
        """
        self._interface, self._index, self._pins = interface, 0, directory
        self._vips = AddressSet("lbmux_vips")
        self._counter = syscall.create_array("lbmux_dropped", COUNTER.size)
        self._count = syscall.map_value(self._counter, COUNTER.size)
        self._link: int | None = None

    def __enter__(self) -> "VipFilter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def hide(self, vips: Iterable[Address], local: Collection[Address]) -> None:
        """Keep exactly these from the kernel, but for the host's own addresses; attached where it is not.

        OSError where the interface is gone.
        """
        self._vips.replace(set(vips) - set(local))
        if not self.is_attached():
            program = address_filter.load(self._vips.descriptor, self._counter).descriptor
            try:
                self._attach(program)
            finally:
                os.close(program)

    def _attach(self, program: int) -> None:
        self._close_link()
        self._index = socket.if_nametoindex(self._interface)
        held = self._pins.links().get(PLACE) if self._pins else None
        if held is not None:
            self._link = syscall.open_pinned(held[0])
            if self.is_attached():  # an earlier process left it: in one step from its VIPs to ours
                syscall.update_link(self._link, program)
                return
            self._close_link()
            held[0].unlink()
        self._link = syscall.create_link(program, self._index, PLACE)
        if self._pins is not None:
            syscall.pin(self._pins.link_path(PLACE, MODE), self._link)

    def _close_link(self) -> None:
        if self._link is not None:
            os.close(self._link)
            self._link = None

    def is_attached(self) -> bool:
        """Whether it still is where it was put: it may be taken off, and the interface may go."""
        return self._link is not None and syscall.linked_interface(self._link) == self._index

    def dropped(self) -> int:
        """Frames that the kernel did not get because of it."""
        return int(COUNTER.unpack_from(self._count)[0])

    def close(self) -> None:
        """Takes it off where it is not pinned."""
        self._close_link()
        self._vips.close()
        os.close(self._counter)
