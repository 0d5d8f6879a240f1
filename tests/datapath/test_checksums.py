"""Checksum steps against sums from scratch."""

from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lbmux.codegen.compiled import compiled
from lbmux.datapath import checksums
from lbmux.datapath.memory import at_address
from lbmux.datapath.parse import Packet
from lbmux.wire.header_layouts import ETHERNET_BYTES
from tests.datapath import plain_packet
from tests.datapath.craft import Craft
from tests.datapath.plain_packet import TCP, UDP, checksum, finish_checksum, parse, sum16


@compiled
def compiled_sum_of(address, length):
    return checksums.sum_of(at_address(address), length)


@compiled
def compiled_fold_wide(total):
    return checksums.fold_wide(total)


@compiled
def compiled_replace(checksum, before, after):
    return checksums.replace(checksum, before, after)


@compiled
def compiled_finish(address, family, protocol, transport):
    zero = np.uint64(0)
    packet = Packet(0, family, zero, zero, zero, zero, np.uint32(0), protocol, 0, ETHERNET_BYTES, transport)
    checksums.finish_checksum(at_address(address), packet)


def finish(frame: bytes) -> bytes:
    memory, packet = np.frombuffer(frame, np.uint8).copy(), parse(frame)
    assert isinstance(packet, plain_packet.Packet)
    compiled_finish(np.uint64(memory.ctypes.data), 6 if packet.is_ipv6 else 4, packet.protocol, packet.transport)
    assert memory.tobytes() == finish_checksum(frame, packet)
    return memory.tobytes()


def swapped(value: int) -> int:
    return int.from_bytes(value.to_bytes(2, "little"), "big")


@given(st.binary(max_size=3000) | st.integers(0, 9000).map(lambda length: b"\xff" * length))
@settings(deadline=None)
def test_sum_of(data: bytes) -> None:
    memory = np.frombuffer(data + b"\xa5", np.uint8)  # a byte after the end, which must not count
    assert swapped(int(compiled_sum_of(np.uint64(memory.ctypes.data), len(data)))) == sum16(data)


@given(st.integers(0, 2**47 - 1) | st.integers(0, 2**18) | st.integers(1, 2**15).map(lambda n: n * 0xFFFF))
@settings(deadline=None)
def test_fold_wide(total: int) -> None:
    """The sum modulo 65,535, where only a sum of nothing is zero."""
    assert int(compiled_fold_wide(np.uint64(total))) == ((total - 1) % 0xFFFF + 1 if total else 0)


@given(st.binary(min_size=40, max_size=40), st.integers(0, 9), st.binary(min_size=4, max_size=4))
@settings(deadline=None)
def test_replace_equals_a_sum_from_scratch(data: bytes, word: int, new: bytes) -> None:
    """RFC 1624's point: the result is that of a new sum, even where the sum passes zero."""
    after = data[: 4 * word] + new + data[4 * word + 4 :]
    assume(any(after) and any(data))  # all zero: the only case where one's complement has two representations
    old = int.from_bytes(data[4 * word : 4 * word + 4], "little")
    replaced = compiled_replace(
        np.uint16(swapped(checksum(data))), np.uint32(old), np.uint32(int.from_bytes(new, "little"))
    )
    assert swapped(int(replaced)) == checksum(after)


def test_replace_where_rfc_1624_corrects_rfc_1141() -> None:
    """Its section 4: checksum 0xDD2F, the word 0x5555 becomes 0x3285, and the answer is 0x0000, not 0xFFFF."""
    replaced = compiled_replace(np.uint16(swapped(0xDD2F)), np.uint32(swapped(0x5555)), np.uint32(swapped(0x3285)))
    assert int(replaced) == 0


IPV6 = Craft(source=bytes(range(16)), destination=bytes(range(16, 32)))
OPTIONS = Craft(options=bytes(8))


@given(st.sampled_from([Craft(), IPV6, OPTIONS]), st.sampled_from([TCP, UDP]), st.binary(max_size=200), st.booleans())
@settings(deadline=None)
def test_finish_checksum_makes_it_right(base: Craft, protocol: int, payload: bytes, padded: bool) -> None:
    right = replace(base, protocol=protocol, payload=payload, padding=b"\xff" * 7 if padded else b"")
    assert finish(replace(right, check="unfinished").frame()) == right.frame()


def test_a_udp_checksum_that_comes_out_as_zero_is_sent_as_all_ones() -> None:
    """RFC 768: zero means that there is none."""
    bare = Craft(protocol=UDP, payload=b"\0\0")
    right = int.from_bytes(bare.frame()[40:42], "big")
    frame = Craft(protocol=UDP, payload=right.to_bytes(2, "big"), check="unfinished").frame()
    assert finish(frame)[40:42] == b"\xff\xff"
