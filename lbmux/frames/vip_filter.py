"""Hides a mux's VIPs from the kernel's receive path, so that the kernel does not forward packets the mux has handled.

A packet socket gets a copy of each frame; the kernel's stack gets the frame itself, and also the frames that an XDP
program punts. If the host forwards (net.ipv4.ip_forward, which Docker and Kubernetes set), it would send a VIP's
packets back to the router. A program at tcx ingress drops them after the packet socket has its copy (Linux 6.6). The
host's own addresses pass: packets to them are delivered, not forwarded.
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
    """The filter on one interface. Raise BpfError if the kernel refuses it."""

    def __init__(self, interface: str, directory: pins.Pins | None = None, *, has_vips: bool = False) -> None:
        """``directory`` is where the link is pinned, so that it outlives this process, as an XDP program does.

        Without it the filter ends with the process, as does a mux in user space. ``has_vips``: the VIPs are addresses
        of this host, whose agent marks the frames that it delivers.
        """
        self._interface, self._index, self._pins, self._has_vips = interface, 0, directory, has_vips
        self._vips = AddressSet("lbmux_vips")
        self._counter = syscall.create_array("lbmux_dropped", COUNTER.size)
        self._count = syscall.map_value(self._counter, COUNTER.size)
        self._link: int | None = None

    def __enter__(self) -> "VipFilter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def hide(self, vips: Iterable[Address], local: Collection[Address]) -> None:
        """Hide exactly these addresses, except the host's own. Attach the filter if it is not attached.

        Raise OSError if the interface is gone.
        """
        self._vips.replace(set(vips) - set(local))
        if not self.is_attached():
            loaded = address_filter.load(self._vips.descriptor, self._counter, passes_delivered=self._has_vips)
            program = loaded.descriptor
            try:
                self._attach(program)
            finally:
                os.close(program)

    def _attach(self, program: int) -> None:
        self._close_link()
        self._index = socket.if_nametoindex(self._interface)
        pinned = self._pins.links().get(PLACE) if self._pins else None
        if pinned is not None:
            self._link = syscall.open_pinned(pinned[0])
            if self.is_attached():  # from an earlier process: replace its VIPs with ours atomically
                syscall.update_link(self._link, program)
                return
            self._close_link()
            pinned[0].unlink()
        self._link = syscall.create_link(program, self._index, PLACE)
        if self._pins is not None:
            syscall.pin(self._pins.link_path(PLACE, MODE), self._link)

    def _close_link(self) -> None:
        if self._link is not None:
            os.close(self._link)
            self._link = None

    def is_attached(self) -> bool:
        """Return whether the filter is still attached: it may have been detached, or the interface removed."""
        return self._link is not None and syscall.linked_interface(self._link) == self._index

    def dropped(self) -> int:
        """Return how many frames the filter has dropped."""
        return int(COUNTER.unpack_from(self._count)[0])

    def close(self) -> None:
        """Close the filter. This detaches it unless it is pinned."""
        self._close_link()
        self._vips.close()
        os.close(self._counter)
