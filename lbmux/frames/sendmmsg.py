"""A vector of messages for sendmmsg(2), which sends batches through a socket without a copy in user space."""

from typing import Any

import numpy as np
from numba import types

from lbmux.codegen.compiled import address_of
from lbmux.datapath.memory import layout, rows

VECTOR = layout(("base", "u8"), ("length", "u8"))
"""struct iovec"""

MESSAGE = layout(
    ("name", "u8"), ("name_length", "u4"), ("pad0", "u4"), ("vectors", "u8"), ("vector_count", "u8"),
    ("control", "u8"), ("control_length", "u8"), ("flags", "u4"), ("pad1", "u4"), ("sent", "u4"), ("pad2", "u4"),
)  # fmt: skip
"""struct mmsghdr of 64-bit Linux."""

NAME_BYTES = 32
"""The space for one socket address of any family that is used here."""

vector_row, message_row = rows(VECTOR), rows(MESSAGE)
sendmmsg = types.ExternalFunction("sendmmsg", types.int32(types.int32, types.voidptr, types.uint32, types.int32))


class Messages:
    """``capacity`` messages with one buffer and one socket address each."""

    def __init__(self, capacity: int, name_length: int = 0) -> None:
        self.vectors = np.zeros(capacity, VECTOR)
        self.names = np.zeros((capacity, NAME_BYTES), np.uint8)
        self.messages: np.ndarray[Any, Any] = np.zeros(capacity, MESSAGE)
        index = np.arange(capacity, dtype=np.uint64)
        self.messages["vectors"] = address_of(self.vectors) + index * np.uint64(VECTOR.itemsize)
        self.messages["vector_count"] = 1
        if name_length:
            self.messages["name"] = address_of(self.names) + index * np.uint64(NAME_BYTES)
            self.messages["name_length"] = name_length
