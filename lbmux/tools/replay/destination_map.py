"""Replace destinations of captured packets by VIPs, so that any capture can be replayed against a configuration.

Addresses and ports of TCP and UDP packets are replaced, and checksums are updated by the difference (RFC 1624): a wrong
checksum stays wrong. Fragments and ICMP messages stay as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

import numpy as np

from lbmux.addresses import Address, port_to_wire, to_pair
from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.context import context_at
from lbmux.datapath.frame import frame, frame_end
from lbmux.datapath.memory import at_address, layout, rows, step
from lbmux.datapath.parse import PARSED, destination_port, parse
from lbmux.datapath.translate import translate_destination
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.targets.native import context_row, enter
from lbmux.tools.replay.captured_flows import plain_worker

MAPPING = layout(
    ("high", "u8"), ("low", "u8"), ("new_high", "u8"), ("new_low", "u8"), ("port", "u2"), ("new_port", "u2"),
    ("unused", "u4"),
)  # fmt: skip
"""Destination and VIP, as in lbmux.addresses; ports 0: any port, which stays."""
mapping_row = rows(MAPPING)


@dataclass(frozen=True)
class Mapping:
    """A destination and the VIP that replaces it. ``port`` and ``vip_port`` are 0 for all ports."""

    address: Address
    port: int
    vip: Address
    vip_port: int

    @classmethod
    def parse(cls, text: str) -> "Mapping":
        """Parse `ADDRESS=VIP` or `ADDRESS:PORT=VIP:PORT`, IPv6 addresses with ports in brackets. Raise ValueError."""
        before, equals, after = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} is not ADDRESS=VIP or ADDRESS:PORT=VIP:PORT")
        (address, port), (vip, vip_port) = _end(before), _end(after)
        if address.version != vip.version:
            raise ValueError(f"{text!r}: both addresses must be IPv4, or both IPv6")
        if (port == 0) != (vip_port == 0):
            raise ValueError(f"{text!r}: both sides need a port, or neither")
        return cls(address, port, vip, vip_port)

    def __str__(self) -> str:
        return f"{_text(self.address, self.port)}={_text(self.vip, self.vip_port)}"


def _end(text: str) -> tuple[Address, int]:
    try:
        return ip_address(text.removeprefix("[").removesuffix("]")), 0
    except ValueError:
        host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= 65535):
        raise ValueError(f"{text!r} is not an address, or ADDRESS:PORT with a port of 1 to 65535")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r}: write an IPv6 address with a port as [ADDRESS]:PORT")
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")), int(port)
    except ValueError:
        raise ValueError(f"{host!r} is not an IPv4 or IPv6 address") from None


def _text(address: Address, port: int) -> str:
    host = f"[{address}]" if isinstance(address, IPv6Address) and port else str(address)
    return f"{host}:{port}" if port else host


class DestinationMap:
    """Mappings, applied to batches. A mapping of one port takes precedence over one of all ports."""

    def __init__(self, mappings: Sequence[Mapping]) -> None:
        """Raise ValueError if a destination has two mappings."""
        ends = [(each.address, each.port) for each in mappings]
        for each, end in zip(mappings, ends, strict=True):
            if ends.count(end) > 1:
                raise ValueError(f"{_text(*end)} has two mappings: {each} and another")
        sorted_mappings = sorted(mappings, key=lambda each: each.port == 0)
        self._rows = np.zeros(len(sorted_mappings), MAPPING)
        for row, each in zip(self._rows, sorted_mappings, strict=True):
            row["high"], row["low"] = to_pair(each.address)
            row["new_high"], row["new_low"] = to_pair(each.vip)
            row["port"], row["new_port"] = port_to_wire(each.port), port_to_wire(each.vip_port)
        self._worker = plain_worker()
        self.packets = 0
        """How many packets were changed."""
        self.apply(CapturedFrames(0))  # an empty batch compiles the code

    def apply(self, frames: CapturedFrames) -> None:
        """Replace the destinations of a batch, in place."""
        rows = (address_of(self._rows), len(self._rows))
        self.packets += _apply(self._worker.address, *rows, frames.address, frames.length, frames.count)


@step
def _mapping_of(mappings, count, packet):  # type: ignore[no-untyped-def]
    """Return the row of the packet's destination, or -1."""
    for index in range(count):
        row = mapping_row(mappings, index)
        has_port = row.port == 0 or row.port == destination_port(packet.ports)
        if row.low == packet.destination_low and row.high == packet.destination_high and has_port:
            return index
    return -1


@compiled
def _apply(context_address, mappings, mapping_count, address, length, count):  # type: ignore[no-untyped-def]
    """Return how many packets were changed."""
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    changed = 0
    for index in range(count):
        enter(record, address[index], length[index], 0, 0)
        start = frame(context)
        packet = parse(context, start, frame_end(context))
        mapping = _mapping_of(at_address(mappings), mapping_count, packet) if packet.verdict == PARSED else -1
        if mapping >= 0:
            row = mapping_row(at_address(mappings), mapping)
            port = destination_port(packet.ports) if row.port == 0 else row.new_port
            translate_destination(context, start, packet, row.new_high, row.new_low, port)
            changed += 1
    return changed
