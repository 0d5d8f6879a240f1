"""A pcapng writer (draft-ietf-opsawg-pcapng): one section, named interfaces, packets with comments.

It writes the minimum from which Wireshark shows all of this. The reader is pcapng.py.
"""

import struct
from typing import BinaryIO

from lbmux.frames.pcapng import BYTE_ORDER_MAGIC, OPTION_RESOLUTION
from lbmux.frames.pcapng_blocks import BLOCK_BYTES, ENHANCED_BLOCK, INTERFACE_BLOCK, SECTION_BLOCK

LINK_ETHERNET = 1
NANOSECONDS = 9
"""``if_tsresol``: times are in units of 10**-9 s."""
OPTION_COMMENT, OPTION_INTERFACE_NAME, OPTION_FLAGS = 1, 2, 2
"""The last two codes belong to different blocks."""
INBOUND, OUTBOUND = 1, 2
MOST_COMMENT_BYTES = 0xFFFF


class PcapngWriter:
    """Writes to an open file. It flushes every block, so the file is complete however the writing ends."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._interfaces: dict[str, int] = {}
        self._write(SECTION_BLOCK, struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1))

    def write(self, time_ns: int, interface: str, frame: bytes, length: int, comment: str, direction: int) -> None:
        """Write a packet that an interface received (INBOUND) or sent (OUTBOUND). Describe the interface if it is new.

        ``length`` is the packet's length on the wire; ``frame`` may be shorter.
        """
        index = self._interfaces.get(interface)
        if index is None:
            index = self._interfaces[interface] = len(self._interfaces)
            options = _option(OPTION_INTERFACE_NAME, interface.encode())
            options += _option(OPTION_RESOLUTION, bytes([NANOSECONDS]))
            self._write(INTERFACE_BLOCK, struct.pack("<HHI", LINK_ETHERNET, 0, 0) + options + _option(0, b""))
        head = struct.pack("<IIIII", index, time_ns >> 32, time_ns & 0xFFFFFFFF, len(frame), length)
        options = _option(OPTION_COMMENT, comment.encode()[:MOST_COMMENT_BYTES])
        options += _option(OPTION_FLAGS, struct.pack("<I", direction))
        self._write(ENHANCED_BLOCK, head + _padded(frame) + options + _option(0, b""))

    def _write(self, kind: int, body: bytes) -> None:
        length = BLOCK_BYTES + len(body)
        self._file.write(struct.pack("<II", kind, length) + body + struct.pack("<I", length))
        self._file.flush()


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
