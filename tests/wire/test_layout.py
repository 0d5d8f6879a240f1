"""Headers packed, unpacked and changed by the names of their fields."""

import struct

import pytest

from lbmux.wire.layout import Layout

HEADER = Layout(("kind", "u1"), ("flags", "u1"), ("length", "u2"), ("address", "S6"), ("time", "u8"))


def test_size_and_offsets_have_no_padding() -> None:
    assert HEADER.size == 18
    assert [HEADER.at(name) for name, _ in HEADER.fields] == [0, 1, 2, 4, 10]


def test_numbers_are_in_network_byte_order() -> None:
    assert HEADER.pack(length=0x0102, time=3) == b"\0\0\1\2" + bytes(6) + bytes(7) + b"\3"


def test_fields_read_back() -> None:
    packed = HEADER.pack(kind=1, length=2, address=b"abcdef")
    header = HEADER.unpack(b"--" + packed, 2)
    assert (header.kind, header.flags, header.length, header.address, header.time) == (1, 0, 2, b"abcdef", 0)


def test_replace_keeps_the_other_fields_and_what_follows() -> None:
    packed = HEADER.pack(kind=1, length=2, address=b"abcdef", time=9) + b"payload"
    assert HEADER.replace(packed, length=5) == HEADER.pack(kind=1, length=5, address=b"abcdef", time=9) + b"payload"


def test_a_field_that_the_header_lacks() -> None:
    with pytest.raises(struct.error):
        HEADER.pack(hops=1)


def test_a_truncated_header_is_an_error() -> None:
    with pytest.raises(struct.error):
        HEADER.unpack(bytes(17))
