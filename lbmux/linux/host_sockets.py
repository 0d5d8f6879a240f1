"""The connections of a host's backends, in all network namespaces of the host that have their addresses.

A container has its own namespace. A netlink socket that was opened there lists the container's sockets. It keeps the
namespace alive, so it is closed once neither a process nor a name refers to the namespace. Several namespaces may have
the same address, such as those of nested containers: all of them are asked.
"""

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroute2.netlink.exceptions import NetlinkError

from lbmux.addresses import Address, to_pair
from lbmux.linux import network_namespaces
from lbmux.linux.interface_addresses import addresses
from lbmux.linux.sock_diag import LISTEN, Connections

SEARCH_S, SEARCH_SHARE = 5.0, 0.01
"""The minimum pause between two searches for namespaces in seconds, and the share of time that they may take."""


@dataclass(frozen=True)
class _Namespace:
    """``listing``: for the thread that lists sockets; ``asking``: for the packet loop; ``timing``: for round trips."""

    addresses: frozenset[Address]
    listing: Connections
    asking: Connections
    timing: Connections

    @classmethod
    def here(cls, own: Collection[Address]) -> "_Namespace":
        return cls(frozenset(own), Connections(), Connections(), Connections())

    def close(self) -> None:
        self.listing.close()
        self.asking.close()
        self.timing.close()


class HostSockets:
    """The sockets of the caller's namespace, and of the namespaces that have the DIPs of ``look_for``."""

    def __init__(self, own: Collection[Address], clock: Callable[[], float] = time.monotonic) -> None:
        """``own``: the addresses of the caller's namespace."""
        self._here, self._clock = _Namespace.here(own), clock
        self._others: dict[int, _Namespace] = {}
        self._of: dict[Address, tuple[_Namespace, ...]] = {}
        self._examined = frozenset[int]()
        self._retired: list[_Namespace] = []
        self._wanted, self._next_search = frozenset[Address](), 0.0

    def __enter__(self) -> "HostSockets":
        return self

    def __exit__(self, *error: object) -> None:
        self.close_retired()
        for one in (self._here, *self._others.values()):
            one.close()

    @property
    def elsewhere(self) -> frozenset[Address]:
        """The DIPs that are in other namespaces and whose sockets can be looked up there."""
        return frozenset(self._of)

    def look_for(self, dips: Collection[Address]) -> None:
        """Search for the namespaces that have these DIPs. It blocks, and does nothing if the last search is recent."""
        wanted, begun = frozenset(dips) - self._here.addresses, self._clock()
        if wanted == self._wanted and (not wanted or begun < self._next_search):
            return
        self._wanted = wanted
        paths = network_namespaces.others() if wanted or self._others else {}
        self._retire({inode for inode in self._others if inode not in paths})
        self._retire({inode for inode, namespace in self._others.items() if not namespace.addresses & wanted})
        missing = bool(wanted - self._by_address().keys())
        for inode, path in paths.items():
            if inode not in self._others and (missing or inode not in self._examined):
                self._look_into(inode, path)
        self._examined, self._of = frozenset(paths), self._by_address()
        self._next_search = begun + max(SEARCH_S, (self._clock() - begun) / SEARCH_SHARE)

    def _look_into(self, inode: int, path: str) -> None:
        with contextlib.suppress(OSError, NetlinkError):  # no permission to enter the namespace, or it is gone
            namespace = network_namespaces.inside(path, lambda: _namespace_of(self._wanted))
            if namespace is not None:
                self._others[inode] = namespace

    def _by_address(self) -> dict[Address, tuple[_Namespace, ...]]:
        by_address = dict[Address, tuple[_Namespace, ...]]()
        for one in self._others.values():
            by_address |= {dip: (*by_address.get(dip, ()), one) for dip in one.addresses & self._wanted}
        return by_address

    def _retire(self, inodes: set[int]) -> None:
        self._retired += [self._others.pop(inode) for inode in inodes]

    def close_retired(self) -> None:
        """Close the sockets of namespaces that are gone. For the thread that calls ``has``."""
        while self._retired:
            self._retired.pop().close()

    def has(self, local: Address, local_port: int, remote: Address, remote_port: int) -> bool:
        """Return whether there is a live TCP connection (see Connections.has)."""
        places = self._of.get(local, (self._here,))
        return any(one.asking.has(local, local_port, remote, remote_port) for one in places)

    def all(self) -> NDArray[Any]:
        """Return the sockets as Connections.all does. Other namespaces add only those of their DIPs, and listeners."""
        parts = [self._here.listing.all()]
        for one in list(self._others.values()):
            sockets = one.listing.all()
            parts.append(sockets[self._is_wanted(one, sockets) | (sockets["state"] == LISTEN)])
        return np.concatenate(parts)

    def round_trips(self) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return what Connections.round_trips does, with the connections of the DIPs in other namespaces.

        For one thread at a time. Raise OSError if the kernel does not answer.
        """
        parts = [self._here.timing.round_trips()]
        for one in list(self._others.values()):
            sockets, rtt_ms = one.timing.round_trips()
            is_wanted = self._is_wanted(one, sockets)
            parts.append((sockets[is_wanted], rtt_ms[is_wanted]))
        return np.concatenate([sockets for sockets, _ in parts]), np.concatenate([rtt_ms for _, rtt_ms in parts])

    def _is_wanted(self, namespace: _Namespace, sockets: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which sockets have a DIP that was searched for."""
        wanted = np.array([to_pair(dip) for dip in namespace.addresses & self._wanted], np.uint64).reshape(-1, 1, 2)
        is_wanted: NDArray[np.bool_] = (sockets["local"][np.newaxis] == wanted).all(axis=2).any(axis=0)
        return is_wanted


def _namespace_of(wanted: frozenset[Address]) -> _Namespace | None:
    """Return the current namespace if it has one of the addresses."""
    own = frozenset(addresses())
    return _Namespace.here(own) if own & wanted else None
