"""A set of addresses that a kernel program looks up: a BPF hash map."""

import os
from collections.abc import Iterable
from ipaddress import IPv6Address

from lbmux.addresses import Address
from lbmux.targets.bpf import syscall

KEY_BYTES, VALUE = 16, bytes(1)
MOST_ADDRESSES = 1 << 16
MAPPED = bytes(10) + b"\xff\xff"
"""The prefix of an IPv4-mapped address (RFC 4291, section 2.5.5.2)."""


class AddressSet:
    """A set of up to MOST_ADDRESSES addresses. ``descriptor`` is that of the map, whose keys have 16 bytes."""

    def __init__(self, name: str) -> None:
        self.descriptor = syscall.create_hash(name, KEY_BYTES, len(VALUE), MOST_ADDRESSES)
        self._held: set[Address] = set()

    def replace(self, wanted: Iterable[Address]) -> None:
        """Hold exactly these addresses. New ones are added before old ones are removed."""
        after = set(wanted)
        for address in after - self._held:
            syscall.update_element(self.descriptor, _key(address), VALUE)
            self._held.add(address)
        for address in self._held - after:
            syscall.delete_element(self.descriptor, _key(address))
        self._held = after

    def close(self) -> None:
        os.close(self.descriptor)


def _key(address: Address) -> bytes:
    return address.packed if isinstance(address, IPv6Address) else MAPPED + address.packed
