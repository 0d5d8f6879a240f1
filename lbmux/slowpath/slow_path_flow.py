"""A flow as the slow path names it, and what it asks of the data path about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lbmux.addresses import Address

OUTER_TTL = 64
"""Of ordinary tunnelled packets: lbmux.datapath.encapsulate writes it."""


class Flow(NamedTuple):
    """Client and VIP, whichever of them sent the packet that tells of it."""

    protocol: int
    client: Address
    client_port: int
    vip: Address
    vip_port: int


@dataclass(frozen=True)
class Candidates:
    """The backends that may have a flow, in the order in which they are asked: ``likely``, then ``rest``.

    ``keys`` are those of ``rest`` (lbmux.slowpath.candidates), which is sorted by them; both have one length.
    """

    likely: list[int]
    rest: list[int]
    keys: list[int]

    def position(self, backend: int) -> tuple[int, int]:
        """Where a backend stands in the order; before all others if it is not in it."""
        if backend in self.likely:
            return 0, self.likely.index(backend)
        return (1, self.rest.index(backend)) if backend in self.rest else (-1, 0)


class Forwarder(Protocol):
    """The data path, for one packet at a time.  A backend is the number of its row."""

    def owner(self, flow: Flow) -> int | None:
        """The backend that has the flow, or would get it; nothing is entered."""

    def enter(self, flow: Flow) -> int | None:
        """Like ``owner``, and the flow keeps the backend from now on."""

    def entry(self, flow: Flow) -> int | None:
        """The backend that the flow table has for the flow."""

    def likely(self, flow: Flow) -> list[int]:
        """The backends that the Maglev tables have for the flow: its slot's, and the one that the slot had before."""

    def candidates(self, flow: Flow, most: int) -> Candidates:
        """The backends that may have a flow, at most so many."""

    def rejects(self, flow: Flow) -> bool:
        """Whether the flow's service tells clients that it has no backend."""

    def at_host(self, backends: Sequence[int], host: Address) -> list[int]:
        """Those of them whose tunnel ends there."""

    def host(self, backend: int) -> Address:
        """Where a backend's tunnel ends."""

    def assign(self, flow: Flow, backend: int) -> None:
        """The flow keeps this backend from now on, whatever it had before."""

    def forget(self, flow: Flow) -> None:
        """The flow has ended: what comes from the same port is another."""

    def inner_mtu(self, backend: int) -> int:
        """Bytes of the largest packet that fits the path to a backend's host in one outer packet."""

    def tunnel(self, packet: bytes, backend: int, hops: int = OUTER_TTL) -> list[tuple[int, bytes]]:
        """The frames that carry a packet to a backend's host, each with the interface that it leaves by; none where
        that cannot be.  ``hops``: the TTL of the outer packet."""
