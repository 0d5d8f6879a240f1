"""A flow in the slow path, and the interface to the data path's tables (``Forwarder``)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lbmux.addresses import Address
from lbmux.wire.packet import Packet

OUTER_TTL = 64
"""The outer TTL of ordinary packets, which lbmux.datapath.encapsulate writes."""


class Flow(NamedTuple):
    """Protocol, client and VIP, whichever of the two sent the packet."""

    protocol: int
    client: Address
    client_port: int
    vip: Address
    vip_port: int


def client_flow(packet: Packet) -> Flow | None:
    """Return the flow of a client's packet, or None if it has no ports."""
    if packet.ports is None:
        return None
    return Flow(packet.protocol, packet.source, packet.ports[0], packet.destination, packet.ports[1])


@dataclass(frozen=True)
class Candidates:
    """The backends that may have a flow, in the order in which they are tried: ``likely``, then ``rest``.

    ``keys`` are the keys of ``rest`` (lbmux.slowpath.candidates), which is sorted by them.
    """

    likely: list[int]
    rest: list[int]
    keys: list[int]

    def position(self, backend: int) -> tuple[int, int]:
        """Return a backend's position. One that is not a candidate is before all others."""
        if backend in self.likely:
            return 0, self.likely.index(backend)
        return (1, self.rest.index(backend)) if backend in self.rest else (-1, 0)


class Forwarder(Protocol):
    """The data path for one packet at a time. A backend is the number of its row."""

    def owner(self, flow: Flow) -> int | None:
        """Return the backend that has the flow or would get it. The flow is not entered."""

    def owners(self, flow: Flow) -> list[int]:
        """Return the backends that may have the flow: its entry's, else those of its slot, at most two."""

    def enter(self, flow: Flow) -> int | None:
        """Like ``owner``, but enter the flow with this backend."""

    def entry(self, flow: Flow) -> int | None:
        """Return the backend in the flow's entry, if it has one."""

    def likely(self, flow: Flow) -> list[int]:
        """Return the Maglev tables' backends for the flow: its slot's current one and its base."""

    def candidates(self, flow: Flow, most: int) -> Candidates:
        """Return at most ``most`` backends that may have the flow."""

    def rejects(self, flow: Flow) -> bool:
        """Return whether the flow's service rejects packets while it has no backend."""

    def at_host(self, backends: Sequence[int], host: Address) -> list[int]:
        """Return those of the backends whose tunnel ends at ``host``."""

    def host(self, backend: int) -> Address:
        """Return the address where a backend's tunnel ends."""

    def assign(self, flow: Flow, backend: int) -> None:
        """Set the flow's backend, whatever it had before."""

    def forget(self, flow: Flow) -> None:
        """Delete the flow's entries: it has ended, and packets from the same port are a new flow's."""

    def inner_mtu(self, backend: int) -> int:
        """Return the size in bytes of the largest packet that fits the path to a backend's host when encapsulated."""

    def tunnel(self, packet: bytes, backend: int, hops: int = OUTER_TTL) -> list[tuple[int, bytes]]:
        """Return (interface, frame) of the frames that carry a packet to a backend's host; none if it cannot be sent.

        ``hops`` is the TTL of the outer packet.
        """
