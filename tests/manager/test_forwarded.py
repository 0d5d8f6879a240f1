"""The address for which a manager asks another one."""

import pytest

from lbmux.manager.forwarded import address_in, forwarded_for


@pytest.mark.parametrize(
    ("address", "value"), [("198.51.100.7", "for=198.51.100.7"), ("2001:db8::7", 'for="[2001:db8::7]"')]
)
def test_an_address_is_read_as_it_was_written(address: str, value: str) -> None:
    assert forwarded_for(address) == value and address_in(value) == address


@pytest.mark.parametrize("value", ["", "by=198.51.100.7", "198.51.100.7"])
def test_a_header_without_an_address_has_none(value: str) -> None:
    assert address_in(value) == ""
