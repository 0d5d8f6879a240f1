"""`lbmux.Maglev` and `lbmux.disruption`: the tables that muxes build, for scripts and notebooks."""

from collections.abc import Sequence

import mmh3
import numpy as np
from numpy.typing import NDArray

from lbmux.tables import maglev
from lbmux.tables.mux_rows import PROTOCOLS
from lbmux.tools.packet_text import ClientPacket

SEED = 1
"""`maglev.seed` of a configuration that does not set it."""


class Maglev:
    """A Maglev table: a slot for each part of the flows, and a backend for each slot (NSDI 2016, section 3.4).

    It is the table that a mux builds for a service with these backends, so it has the same slots.
    """

    def __init__(
        self, names: Sequence[str], weights: Sequence[int] | None = None, size: int = maglev.DEFAULT_SIZE,
        seed: int = SEED,
    ) -> None:  # fmt: skip
        """``names``: of the backends, each once; their order does not matter.  ``weights``: 0 to 65535, one for each
        name; all 1 if None.  ``size``: number of slots, a prime above the number of names.  ``seed``: of the hash that
        picks a slot, `maglev.seed` in a configuration.

        Raises ValueError if one of these does not hold, or if no weight is above 0.
        """
        self.names = tuple(names)
        self.weights = (1,) * len(self.names) if weights is None else tuple(weights)
        self.size, self.seed = size, seed
        _check(self.names, self.weights, size)
        self.table: NDArray[np.uint16] = maglev.build(self.names, self.weights, size)
        """Shape (size,): the index into ``names`` of each slot's backend.  It cannot be written."""
        self.table.flags.writeable = False

    def backend_of(self, flow: str | int) -> str:
        """Return the backend of a flow: text as for `lbmux explain`, or a 32-bit hash.

        Text is `198.51.100.7:40000 > 192.0.2.1:80/tcp`, IPv6 addresses in brackets.  The backend is the one that a mux
        picks for a service whose `hash` is `five_fields`, the default.  Raises LbmuxError for other text.
        """
        return self.names[int(self.table[self.slot_of(flow)])]

    def slot_of(self, flow: str | int) -> int:
        """Return the slot, 0 to size - 1, of a flow or a hash, as `backend_of` takes it."""
        hashed = self.hash_of(flow) if isinstance(flow, str) else flow
        if not 0 <= hashed < 1 << 32:
            raise ValueError(f"{hashed} is not a 32-bit hash")
        return hashed * self.size >> 32

    def hash_of(self, flow: str) -> int:
        """Return the flow's hash: MurmurHash3 x86 32-bit of addresses, ports and protocol in network byte order."""
        packet = ClientPacket.parse(flow)
        ports = packet.source_port.to_bytes(2, "big") + packet.port.to_bytes(2, "big")
        fields = packet.source.packed + packet.vip.packed + ports + bytes([PROTOCOLS[packet.protocol], 0, 0, 0])
        return int(mmh3.hash(fields, self.seed, signed=False))

    def slots(self) -> dict[str, int]:
        """Return the number of slots of each backend."""
        counts = np.bincount(self.table, minlength=len(self.names))
        return dict(zip(self.names, counts.tolist(), strict=True))

    def owners(self) -> NDArray[np.str_]:
        """Return the name of each slot's backend, shape (size,)."""
        names: NDArray[np.str_] = np.array(self.names)[self.table]
        return names

    def __repr__(self) -> str:
        return f"Maglev({len(self.names)} backends, {self.size} slots)"


def disruption(before: Maglev, after: Maglev) -> float:
    """Return the share of slots, 0 to 1, whose backend changes between two tables; backends are compared by name.

    Raises ValueError if the tables differ in size or seed: all flows get another slot then.
    """
    if (before.size, before.seed) != (after.size, after.seed):
        raise ValueError("the tables should have the same size and seed")
    return maglev.disruption(before.owners(), after.owners())


def _check(names: Sequence[str], weights: Sequence[int], size: int) -> None:
    if len(set(names)) != len(names):
        raise ValueError("names should differ from each other")
    if len(weights) != len(names):
        raise ValueError(f"{len(weights)} weights for {len(names)} names")
    if not all(0 <= weight <= 65535 for weight in weights):
        raise ValueError("weights should be 0 to 65535")
    if size <= len(names):
        raise ValueError(f"{size} slots are too few for {len(names)} names")
