"""The order in which a mux tries backends for a flow: the same on every mux.

The likely ones come first: the backend of the flow's Maglev slot, and the slot's former one. Then come the service's
other backends, by a hash of flow and host (rendezvous hashing). A host's key depends only on flow and host, so adding
or removing backends does not change the order of the others.
"""

import mmh3
import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, to_pair
from lbmux.slowpath.slow_path_flow import Flow

Words = NDArray[np.uint64]


def host_key(flow: Flow, host: Address) -> int:
    """Return the key that gives a host its position among the rest."""
    high, low = to_pair(host)
    return int(host_keys(flow, np.array([high], np.uint64), np.array([low], np.uint64))[0])


def host_keys(flow: Flow, high: Words, low: Words) -> Words:
    """Return the keys of many hosts. Their addresses are 64-bit halves as in the tables."""
    ends = flow.client.packed + flow.vip.packed
    fields = ends + bytes([flow.protocol]) + flow.client_port.to_bytes(2, "big") + flow.vip_port.to_bytes(2, "big")
    seed = np.uint64(mmh3.hash64(fields, 0, signed=False)[0])
    return _mix(low ^ _mix(high ^ seed))


def _mix(words: Words) -> Words:
    """Return the finalizer of MurmurHash3: every bit of the input changes every bit of the output."""
    words = (words ^ words >> np.uint64(33)) * np.uint64(0xFF51AFD7ED558CCD)
    words = (words ^ words >> np.uint64(33)) * np.uint64(0xC4CEB9FE1A85EC53)
    return words ^ words >> np.uint64(33)
