"""ethtool requests to the kernel: a device's driver, and its features under the kernel's own names.

They use SIOCETHTOOL in the current network namespace. Layouts are those of linux/ethtool.h.
"""

import array
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from lbmux.errors import SetupError

SIOCETHTOOL = 0x8946
GET_DRIVER, GET_STRINGS, GET_STRINGS_COUNT, GET_FEATURES, SET_FEATURES = 0x03, 0x1B, 0x37, 0x3A, 0x3B
DRIVER_BYTES = 196
FEATURE_STRINGS, STRING_BYTES = 4, 32
BLOCK_BITS = 32


@dataclass(frozen=True)
class Feature:
    is_on: bool
    is_fixed: bool


def request(interface: str, data: bytes) -> bytes:
    """Send a request and return the kernel's answer. Raise SetupError if it refuses."""
    answer = array.array("B", data)
    wanted = struct.pack("16sP", interface.encode()[:15], answer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, SIOCETHTOOL, wanted)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            hint = f"needs CAP_NET_ADMIN and a driver that supports it: `ethtool -k {interface}`"
            raise SetupError(f"interface {interface}", f"offloads: {reason}", hint) from error
    return answer.tobytes()


def driver(interface: str) -> str:
    return request(interface, struct.pack("I", GET_DRIVER).ljust(DRIVER_BYTES, b"\0"))[4:36].rstrip(b"\0").decode()


def read_features(interface: str) -> dict[str, Feature]:
    """Return all features that this kernel knows, in its order."""
    names = _names(interface)
    blocks = -(-len(names) // BLOCK_BITS)
    answer = request(interface, struct.pack("II", GET_FEATURES, blocks).ljust(8 + 16 * blocks, b"\0"))
    features = {}
    for number, name in enumerate(names):
        block, bit = divmod(number, BLOCK_BITS)
        available, _, active, never_changed = struct.unpack_from("IIII", answer, 8 + 16 * block)
        changes = available & ~never_changed
        if name:
            features[name] = Feature(bool(active >> bit & 1), not changes >> bit & 1)
    return features


def write_features(interface: str, wanted: Mapping[str, bool]) -> None:
    """Request features. The kernel may accept or ignore each."""
    names = _names(interface)
    blocks = [[0, 0] for _ in range(-(-len(names) // BLOCK_BITS))]
    for name, value in wanted.items():
        block, bit = divmod(names.index(name), BLOCK_BITS)
        blocks[block][0] |= 1 << bit
        blocks[block][1] |= value << bit
    request(interface, struct.pack("II", SET_FEATURES, len(blocks)) + b"".join(struct.pack("II", *b) for b in blocks))


def _names(interface: str) -> list[str]:
    answer = request(interface, struct.pack("IIQI", GET_STRINGS_COUNT, 0, 1 << FEATURE_STRINGS, 0))
    count = struct.unpack_from("I", answer, 16)[0]
    answer = request(interface, struct.pack("III", GET_STRINGS, FEATURE_STRINGS, count) + bytes(STRING_BYTES * count))
    return [answer[at : at + STRING_BYTES].rstrip(b"\0").decode() for at in range(12, len(answer), STRING_BYTES)]
