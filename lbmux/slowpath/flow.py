"""A flow as the slow path names it, and what it asks of the data path about it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from lbmux.addresses import Address


class Flow(NamedTuple):
    """Client and VIP, whichever of them sent the packet that tells of it."""

    protocol: int
    client: Address
    client_port: int
    vip: Address
    vip_port: int


class Forwarder(Protocol):
    """The data path, for one packet at a time.  A backend is the number of its row."""

    def owner(self, flow: Flow) -> int | None:
        """The backend that has the flow, or would get it; nothing is entered."""

    def enter(self, flow: Flow) -> int | None:
        """Like ``owner``, and the flow keeps the backend from now on."""

    def candidates(self, flow: Flow, most: int) -> list[int]:
        """The backends that may have a flow: its slot's, the one that the slot had before, then others that live."""

    def at_host(self, backends: Sequence[int], host: Address) -> list[int]:
        """Those of them whose tunnel ends there."""

    def host(self, backend: int) -> Address:
        """Where a backend's tunnel ends."""

    def give(self, flow: Flow, backend: int) -> None:
        """The flow keeps this backend from now on, whatever it had before."""

    def forget(self, flow: Flow) -> None:
        """The flow has ended: what comes from the same port is another."""

    def room(self, backend: int) -> int:
        """Bytes of the largest packet that fits the path to a backend's host in one outer packet."""

    def tunnel(self, packet: bytes, backend: int) -> list[tuple[int, bytes]]:
        """The frames that carry a packet to a backend's host, each with the interface that it leaves by; none where
        that cannot be."""
