"""An interface's offloads: what must be off, so that frames come as they were on the wire.

Receive offloads (GRO, LRO) hand up super-frames, which no mux may send on.  A sender's checksum offload leaves
checksums unfinished, which a packet socket tells of but XDP does not.  See ethtool(8), linux/ethtool.h.
"""

import array
import contextlib
import fcntl
import socket
import struct
from collections.abc import Iterator, Mapping

from lbmux.errors import SetupError

SIOCETHTOOL = 0x8946
COMMANDS = {"rx": (0x14, 0x15), "tx": (0x16, 0x17), "sg": (0x18, 0x19), "tso": (0x1E, 0x1F), "gso": (0x23, 0x24),
            "gro": (0x2B, 0x2C)}  # fmt: skip
"""Feature: (get, set), each an on or off."""
GET_DRIVER, DRIVER_BYTES = 0x03, 196
GET_FLAGS, SET_FLAGS, FLAG_LRO = 0x25, 0x26, 1 << 15
SUPER_FRAMES = {"gro": False, "lro": False}


def features(interface: str) -> dict[str, bool]:
    """What is on; SetupError where the interface is not there."""
    state = {name: bool(_ethtool(interface, get)) for name, (get, _) in COMMANDS.items()}
    return state | {"lro": bool(_ethtool(interface, GET_FLAGS) & FLAG_LRO)}


def set_features(interface: str, wanted: Mapping[str, bool]) -> dict[str, bool]:
    """Switch features; what they were before, of those that changed.  SetupError where one cannot be switched."""
    before = features(interface)
    changed = {name: before[name] for name, value in wanted.items() if before[name] != value}
    for name in changed:
        if name == "lro":
            flags = _ethtool(interface, GET_FLAGS) & ~FLAG_LRO
            _ethtool(interface, SET_FLAGS, flags | (FLAG_LRO if wanted[name] else 0))
        else:
            _ethtool(interface, COMMANDS[name][1], int(wanted[name]))
    return changed


@contextlib.contextmanager
def without_super_frames(interface: str) -> Iterator[dict[str, bool]]:
    """GRO and LRO off while it lasts; put back behind it."""
    changed = set_features(interface, SUPER_FRAMES)
    try:
        yield changed
    finally:
        with contextlib.suppress(SetupError):  # the interface may be gone
            set_features(interface, changed)


def device_driver(interface: str) -> str:
    """The name of the interface's driver, empty where it has none to tell."""
    data = array.array("B", struct.pack("I", GET_DRIVER).ljust(DRIVER_BYTES, b"\0"))
    request = struct.pack("16sP", interface.encode()[:15], data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        fcntl.ioctl(sock, SIOCETHTOOL, request)
    return data.tobytes()[4:36].rstrip(b"\0").decode()


def _ethtool(interface: str, command: int, value: int = 0) -> int:
    data = array.array("B", struct.pack("II", command, value))
    request = struct.pack("16sP", interface.encode()[:15], data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, SIOCETHTOOL, request)
        except OSError as error:
            raise SetupError(f"interface {interface}", f"offloads: {error.strerror}") from error
    return int(struct.unpack("II", data.tobytes())[1])
