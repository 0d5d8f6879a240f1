"""Reads and switches an interface's offloads. Those that merge frames must be off: frames arrive as on the wire then.

Receive offloads (GRO, LRO) merge frames into super-frames, which user space must segment again (frames.super_frames)
and a kernel program cannot. The segmentation offload of a sender on the same machine (TSO) can be switched off only at
the sender. A sender's checksum offload leaves checksums unfinished, which a packet socket reports but XDP does not. See
ethtool(8) and linux/ethtool.h.
"""

import contextlib
import logging
import struct
from collections.abc import Iterator, Mapping

from lbmux.errors import SetupError
from lbmux.linux.ethtool import driver, read_features, request, write_features

log = logging.getLogger(__name__)

COMMANDS = {"rx": (0x14, 0x15), "tx": (0x16, 0x17), "sg": (0x18, 0x19), "tso": (0x1E, 0x1F), "gso": (0x23, 0x24),
            "gro": (0x2B, 0x2C)}  # fmt: skip
"""(get, set) commands by ethtool(8)'s short name, which may stand for several kernel features. Values are on or off."""
GET_FLAGS, SET_FLAGS, FLAG_LRO = 0x25, 0x26, 1 << 15
SUPER_FRAMES = ("gro", "lro", "rx-gro-hw", "rx-gro-list", "rx-udp-gro-forwarding")


def features(interface: str) -> dict[str, bool]:
    """Return which features are on, by ethtool's short names, else the kernel's. Raise SetupError on failure."""
    state = {name: bool(_ethtool(interface, get)) for name, (get, _) in COMMANDS.items()}
    state["lro"] = bool(_ethtool(interface, GET_FLAGS) & FLAG_LRO)
    known = read_features(interface)
    return state | {name: known[name].is_on for name in SUPER_FRAMES if name in known}


def set_features(interface: str, wanted: Mapping[str, bool]) -> dict[str, bool]:
    """Switch features, by short or kernel names. Return the former values of those that changed.

    Raise SetupError if one cannot be switched.
    """
    before = _every_feature(interface)
    hint = f"`ethtool -k {interface}` lists the features and which are fixed"
    for name in wanted.keys() - before.keys():
        raise SetupError(f"interface {interface}", f"offloads: this kernel has no feature {name}", hint)
    changed = {name: before[name] for name, value in wanted.items() if before[name] != value}
    for name in changed:
        if name == "lro":
            flags = _ethtool(interface, GET_FLAGS) & ~FLAG_LRO
            _ethtool(interface, SET_FLAGS, flags | (FLAG_LRO if wanted[name] else 0))
        elif name in COMMANDS:
            _ethtool(interface, COMMANDS[name][1], int(wanted[name]))
        else:
            write_features(interface, {name: wanted[name]})
    after = _every_feature(interface) if changed else before
    for name in changed:
        if after[name] != wanted[name]:
            reason = f"offloads: {name} stays {'on' if after[name] else 'off'}"
            raise SetupError(f"interface {interface}", reason, hint)
    return changed


def switch_off_super_frames(interface: str) -> dict[str, bool]:
    """Switch off every receive offload that merges frames. Return the former values. Warn about fixed features."""
    state, fixed = features(interface), [name for name, feature in read_features(interface).items() if feature.is_fixed]
    joins = [name for name in SUPER_FRAMES if state.get(name)]
    for name in set(joins) & set(fixed):
        log.warning("interface %s: %s cannot be switched off; user space segments what it merges", interface, name)
    return set_features(interface, {name: False for name in joins if name not in fixed})


@contextlib.contextmanager
def without_super_frames(interface: str) -> Iterator[dict[str, bool]]:
    """Switch off every receive offload that merges frames, and restore them at the end. Warn about fixed features."""
    changed = switch_off_super_frames(interface)
    try:
        yield changed
    finally:
        with contextlib.suppress(SetupError):  # the interface may be gone
            set_features(interface, changed)


def _every_feature(interface: str) -> dict[str, bool]:
    return features(interface) | {name: feature.is_on for name, feature in read_features(interface).items()}


def device_driver(interface: str) -> str:
    """Return the name of the interface's driver, or an empty string if it reports none."""
    with contextlib.suppress(SetupError):
        return driver(interface)
    return ""


def _ethtool(interface: str, command: int, value: int = 0) -> int:
    return int(struct.unpack("II", request(interface, struct.pack("II", command, value)))[1])
