"""The data path finds every entry of the address map, and no other."""

import random
from ipaddress import IPv4Address, IPv6Address

import numpy as np
import pytest

from lbmux.addresses import port_to_wire, to_pair
from lbmux.codegen.compiled import compiled
from lbmux.datapath.context import context_at
from lbmux.datapath.match import PROBES, match
from lbmux.datapath.memory import at_address
from lbmux.datapath.tables import DIP, MUX, TUNNEL_ADDRESS, VIP, Sizes, settings_row
from lbmux.errors import TableError
from lbmux.tables.address_map import Name, fill
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables


@compiled
def compiled_match(context, settings, kind, high, low, port, protocol):
    setting = settings_row(at_address(settings), 0)
    return match(context_at(context), setting, kind, high, low, port, protocol)


def find(tables: Tables, name: Name) -> int:
    """Return the index that the data path finds for an entry, or -1."""
    worker = Worker(tables)
    high, low = to_pair(name.address)
    return int(
        compiled_match(
            worker.address,
            np.uint64(tables.settings.ctypes.data),
            name.kind,
            np.uint64(high),
            np.uint64(low),
            np.uint16(port_to_wire(name.port)),
            name.protocol,
        )
    )


def some_tables(names: int = 64) -> Tables:
    return Tables.allocate(Sizes(names, services=16, slots=16, backends=16, buckets=2))


def install(tables: Tables, names: list[Name], copy: int = 0) -> None:
    tables.addresses[copy], tables.settings[0][f"salt{copy}"] = fill(tables, names)
    tables.settings[0]["active"] = copy


def some_names(number: int) -> list[Name]:
    pick = random.Random(number)
    return [
        Name(VIP, IPv4Address(pick.getrandbits(32)), pick.randrange(65536), pick.choice([6, 17]), index)
        for index in range(number)
    ]


@pytest.mark.parametrize("number", [0, 1, 20, 256])
def test_every_name_is_found_and_no_other(number: int) -> None:
    tables, names = some_tables(1024), some_names(number)
    install(tables, names)
    assert [find(tables, name) for name in names] == list(range(number))
    assert {find(tables, name) for name in some_names(number + 1)} == {-1}


def test_entries_that_differ_in_one_field_are_distinct() -> None:
    address = IPv4Address("192.0.2.1")
    names = [
        Name(VIP, address, 80, 6, 0),
        Name(VIP, address, 81, 6, 1),
        Name(VIP, address, 80, 17, 2),
        Name(DIP, address, 80, 6, 3),
        Name(VIP, IPv4Address("192.0.2.2"), 80, 6, 4),
        Name(MUX, address, 0, 0, 5),
        Name(TUNNEL_ADDRESS, address, 0, 0, 6),
        Name(VIP, IPv6Address("2001:db8::1"), 80, 6, 7),
        Name(VIP, IPv6Address("2001:db9::1"), 80, 6, 8),
        Name(VIP, IPv6Address("2001:db8::1:0:0:1"), 80, 6, 9),
    ]
    tables = some_tables()
    install(tables, names)
    assert [find(tables, name) for name in names] == list(range(10))
    assert find(tables, Name(VIP, address, 20480, 6, 0)) == -1  # 80 in the other byte order


def test_the_copy_in_force_is_the_one_that_counts() -> None:
    tables, (first, second) = some_tables(), some_names(2)
    install(tables, [first], copy=0)
    install(tables, [second], copy=1)
    assert (find(tables, first), find(tables, second)) == (-1, 1)
    tables.settings[0]["active"] = 0
    assert (find(tables, first), find(tables, second)) == (0, -1)


def test_an_entry_is_near_its_place_at_the_end_of_the_table() -> None:
    """With many salts, some entry wraps around; a table that is a quarter full can always be filled."""
    tables, names = some_tables(), some_names(16)
    for _ in range(50):
        install(tables, names)
        assert [find(tables, name) for name in names] == list(range(16))
    assert PROBES == 8


def test_more_than_a_quarter_is_too_many() -> None:
    tables = some_tables()
    with pytest.raises(TableError) as caught:
        fill(tables, some_names(17))
    assert (caught.value.table, caught.value.wanted, caught.value.limit) == ("addresses", 17, 16)


def test_a_quarter_of_a_large_table_is_filled_by_any_salt() -> None:
    tables, names = some_tables(16384), some_names(4096)
    for _ in range(5):
        fill(tables, names)


VIPS_IN_A_ROW = [Name(VIP, IPv4Address("198.51.0.0") + index, 80, 6, index) for index in range(1000)]
PORTS_IN_A_ROW = [Name(VIP, IPv4Address("198.51.100.1"), 1000 + index, 6, index) for index in range(1000)]


@pytest.mark.slow
@pytest.mark.parametrize("names", [VIPS_IN_A_ROW, PORTS_IN_A_ROW], ids=["VIPs", "ports"])
def test_neighbours_find_room_whatever_the_secret_keys(names: list[Name]) -> None:
    """Their hashes are a step apart, which some keys make a bad one: a salt gives another."""
    tables = some_tables(4096)
    for _ in range(500):
        tables.initialise()
        install(tables, names)
    assert [find(tables, name) for name in names] == list(range(1000))


def test_the_tables_are_not_changed() -> None:
    tables = some_tables()
    fill(tables, some_names(9))
    assert not tables.addresses["kind"].any()
    assert tables.settings[0]["salt0"] == tables.settings[0]["salt1"] == 0
