"""Frames by struct and slices: checks, encapsulation, decapsulation and translation, slow and obvious.

Checksums are computed from scratch.  One that was wrong before stays wrong by as much, as RFC 1624 has it.
"""

import struct
from typing import NamedTuple

from lbmux.datapath.verdicts import Verdict

ICMP, IPIP, TCP, UDP = 1, 4, 6, 17
CHECKSUM_AT = {TCP: 16, UDP: 6}  # in the transport header


class Packet(NamedTuple):
    source: bytes
    destination: bytes
    protocol: int
    ports: bytes
    flags: int


def sum16(data: bytes) -> int:
    """RFC 1071: the one's complement sum of big-endian words."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    return 0xFFFF - sum16(data)


def check_ethernet(frame: bytes) -> Verdict | None:
    """Why a frame is not IPv4 over Ethernet, or None."""
    if len(frame) < 14:
        return Verdict.TRUNCATED
    kind = struct.unpack("!H", frame[12:14])[0]
    if kind in (0x8100, 0x88A8):
        return Verdict.VLAN
    return None if kind == 0x0800 else Verdict.NOT_IP


def check_ipv4(packet: bytes) -> Verdict | None:
    """Why these bytes do not begin with a whole IPv4 packet without options, or None."""
    if len(packet) < 20:
        return Verdict.TRUNCATED
    version, words = packet[0] >> 4, packet[0] & 15
    if version != 4 or words < 5:
        return Verdict.MALFORMED
    if words > 5:
        return Verdict.OPTIONS
    length = struct.unpack("!H", packet[2:4])[0]
    return None if 20 <= length <= len(packet) else Verdict.MALFORMED


def parse(packet: bytes) -> Packet | Verdict:
    """The TCP or UDP packet that ``check_ipv4`` has passed, or why it is none."""
    length, fragment = struct.unpack("!H", packet[2:4])[0], struct.unpack("!H", packet[6:8])[0]
    protocol = packet[9]
    if fragment & 0x3FFF:  # more fragments, or an offset
        return Verdict.FRAGMENT
    if protocol == ICMP:
        return Verdict.ICMP
    if protocol not in (TCP, UDP):
        return Verdict.PROTOCOL
    if length < 20 + (20 if protocol == TCP else 8):
        return Verdict.MALFORMED
    flags = packet[33] if protocol == TCP else 0
    return Packet(packet[12:16], packet[16:20], protocol, packet[20:24], flags)


def encapsulate(frame: bytes, source_mac: bytes, destination_mac: bytes, source: bytes, destination: bytes) -> bytes:
    """RFC 2003: TOS, DF and identification of the inner header, TTL 64."""
    inner = frame[14:]
    tos, identification, fragment = inner[1], inner[4:6], inner[6] & 0x40
    length = struct.unpack("!H", inner[2:4])[0] + 20
    outer = struct.pack("!BBH", 0x45, tos, length) + identification + bytes([fragment, 0, 64, IPIP])
    words = outer + b"\0\0" + source + destination
    outer += struct.pack("!H", checksum(words)) + source + destination
    return destination_mac + source_mac + b"\x08\x00" + outer + inner


def finish_checksum(frame: bytes) -> bytes:
    """The transport checksum of a frame in whose checksum field the pseudo header's sum stands."""
    protocol, length = frame[23], struct.unpack("!H", frame[16:18])[0]
    at = 34 + CHECKSUM_AT[protocol]
    value = checksum(frame[34 : 14 + length])
    if protocol == UDP and value == 0:
        value = 0xFFFF
    return frame[:at] + struct.pack("!H", value) + frame[at + 2 :]


def transport_checksum(packet: bytes) -> int:
    """Of an IPv4 packet with TCP or UDP, from scratch."""
    protocol, length = packet[9], struct.unpack("!H", packet[2:4])[0]
    at, segment = CHECKSUM_AT[protocol], packet[20:length]
    pseudo = packet[12:20] + struct.pack("!HH", protocol, len(segment))
    return checksum(pseudo + segment[:at] + b"\0\0" + segment[at + 2 :])


def header_checksum(packet: bytes) -> int:
    return checksum(packet[:10] + b"\0\0" + packet[12:20])


def _still_wrong(right_after: int, right_before: int, was: int) -> int:
    return (right_after + was - right_before) % 0xFFFF


def translate(frame: bytes, address: bytes, port: int, to: str) -> bytes:
    """The frame with another address and port as its ``source`` or ``destination``."""
    before = frame[14:]
    after = bytearray(before)
    address_at, port_at = (12, 20) if to == "source" else (16, 22)
    after[address_at : address_at + 4] = address
    after[port_at : port_at + 2] = struct.pack("!H", port)
    was = struct.unpack("!H", before[10:12])[0]
    value = _still_wrong(header_checksum(after), header_checksum(before), was)
    after[10:12] = struct.pack("!H", value)
    protocol = before[9]
    at = 20 + CHECKSUM_AT[protocol]
    was = struct.unpack("!H", before[at : at + 2])[0]
    if protocol == TCP or was != 0:
        value = _still_wrong(transport_checksum(bytes(after)), transport_checksum(before), was)
        if protocol == UDP and value == 0:
            value = 0xFFFF
        after[at : at + 2] = struct.pack("!H", value)
    return frame[:14] + bytes(after)
