"""The addresses of an interface, of the machine, and of what has none."""

from ipaddress import ip_address

import pytest

from lbmux.errors import SetupError
from lbmux.linux.interface_addresses import addresses, first_addresses
from tests.frames.pair import Pair

OURS = ip_address("10.9.0.2")


@pytest.mark.root
def test_addresses_of_an_interface_and_of_the_machine(pair: Pair) -> None:
    pair.netlink("b", lambda ip, index: ip.addr("add", index=index, address="10.9.0.22", prefixlen=24))
    assert pair.inside("b", lambda: first_addresses("b0")) == (OURS,)
    assert pair.inside("b", lambda: addresses("b0")) == [OURS, ip_address("10.9.0.22")]
    assert set(pair.inside("b", addresses)) == {ip_address("127.0.0.1"), OURS, ip_address("10.9.0.22")}


@pytest.mark.root
def test_an_interface_without_an_address_or_a_name_is_an_error(pair: Pair) -> None:
    pair.netlink("b", lambda ip, index: ip.flush_addr(index=index))
    with pytest.raises(SetupError, match=r"^interface b0: has no IP address "):
        pair.inside("b", lambda: first_addresses("b0"))
    with pytest.raises(SetupError, match=r"^interface nowhere0: not found [(]`ip link` lists them[)]$"):
        pair.inside("b", lambda: first_addresses("nowhere0"))
