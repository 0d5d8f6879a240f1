"""Which addresses lie within prefixes."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from hypothesis import given
from hypothesis import strategies as st

from lbmux.addresses import Address
from lbmux.linux.prefixes import EVERYTHING, prefix, within

near = st.integers(0, 2**12 - 1).map(lambda n: IPv4Address("10.0.0.0") + n)
near6 = st.integers(0, 2**12 - 1).map(lambda n: IPv6Address("fd00::") + n)
networks = st.builds(lambda a, n: IPv4Network((a, n), strict=False), near, st.integers(0, 32))
networks6 = st.builds(lambda a, n: IPv6Network((a, n), strict=False), near6, st.integers(0, 128))


@given(st.lists(near | near6, unique=True), st.lists(networks | networks6, max_size=6))
def test_the_same_as_asking_each_network_about_each_address(
    destinations: list[Address], wanted: list[IPv4Network | IPv6Network]
) -> None:
    matching = within(destinations, {prefix(network.network_address, network.prefixlen) for network in wanted})
    assert matching == [address for address in destinations if any(address in network for network in wanted)]


def test_everything_is_both_families() -> None:
    both = [ip_address("192.0.2.1"), ip_address("2001:db8::1")]
    assert within(both, EVERYTHING) == both


def test_no_prefix_has_nothing() -> None:
    assert within([ip_address("192.0.2.1")], ()) == []
