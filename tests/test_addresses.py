"""Text to integer and back, and the byte order that the data path relies on."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbmux.addresses import (
    MAPPED_LOW,
    endpoint,
    from_pair,
    from_wire32,
    mac_from_int,
    mac_to_int,
    port_from_wire,
    port_to_wire,
    to_pair,
    to_wire32,
)


def test_ipv4_is_mapped_and_its_wire_bytes_are_the_upper_half_of_low() -> None:
    assert to_pair("192.0.2.1") == (0, 0x010200C0 << 32 | 0xFFFF0000)


def test_ipv6_halves_are_little_endian_views_of_the_wire() -> None:
    assert to_pair("2001:db8::1") == (0x00000000B80D0120, 0x0100000000000000)


def test_text_and_address_objects_give_the_same_pair() -> None:
    assert to_pair(IPv4Address("10.0.0.1")) == to_pair("10.0.0.1")
    assert to_pair(IPv6Address("fe80::1")) == to_pair("fe80::1")


def test_mapped_ipv6_text_is_the_ipv4_address() -> None:
    assert from_pair(*to_pair("::ffff:10.0.0.1")) == IPv4Address("10.0.0.1")


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.256", "2001:db8::g", "web"])
def test_text_that_is_not_an_address_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        to_pair(text)


@given(st.ip_addresses(v=4))
def test_ipv4_round_trip(address: IPv4Address) -> None:
    high, low = to_pair(address)
    assert from_pair(high, low) == address
    assert (high, low) == (0, to_wire32(address) << 32 | MAPPED_LOW)
    assert from_wire32(to_wire32(address)) == address


@given(st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None))
def test_ipv6_round_trip(address: IPv6Address) -> None:
    high, low = to_pair(address)
    assert from_pair(high, low) == address
    assert high.to_bytes(8, "little") + low.to_bytes(8, "little") == address.packed


def test_port_80_is_loaded_as_0x5000() -> None:
    assert port_to_wire(80) == 0x5000


@given(st.integers(0, 0xFFFF))
def test_port_round_trip(port: int) -> None:
    assert port_from_wire(port_to_wire(port)) == port


def test_first_byte_of_a_mac_is_the_lowest() -> None:
    assert mac_to_int("02:00:00:00:00:0a") == 0x0A0000000002
    assert mac_to_int("02-00-00-00-00-0A") == 0x0A0000000002


@given(st.integers(0, (1 << 48) - 1))
def test_mac_round_trip(mac: int) -> None:
    assert mac_to_int(mac_from_int(mac)) == mac


@pytest.mark.parametrize("text", ["", "02:00:00:00:00", "02:00:00:00:00:0g", "0200.0000.0001", "2:0:0:0:0:1"])
def test_text_that_is_not_a_mac_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        mac_to_int(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("9100", ("127.0.0.1", 9100)), ("0", ("127.0.0.1", 0)), ("65535", ("127.0.0.1", 65535)),
        ("10.0.0.1:80", ("10.0.0.1", 80)), ("[::1]:80", ("::1", 80)), ("::1:80", ("::1", 80)),
        (":80", ("127.0.0.1", 80)),
    ],
)  # fmt: skip
def test_endpoint(text: str, wanted: tuple[str, int]) -> None:
    assert endpoint(text, "127.0.0.1") == wanted


@pytest.mark.parametrize("text", ["[::1:9", "::1]:9", "[[::1]]:9", "[::1]]:9", "[:9", "]:9"])
def test_brackets_that_are_not_a_pair_are_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="brackets are not a pair"):
        endpoint(text, "127.0.0.1")


@pytest.mark.parametrize("text", ["99999", "65536", "-1", "", "localhost:", "localhost:http", "8_0", "٨٠", " 80"])
def test_an_invalid_port_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="with a port of 0 to 65535"):
        endpoint(text, "127.0.0.1")
