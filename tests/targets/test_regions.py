"""Tables as Python sees them."""

import time

import numpy as np
import pytest

from lbmux.datapath.tables import MAGIC, TICK_SHIFT, Sizes
from lbmux.targets.hash_keys import NAMES as KEYS
from lbmux.targets.regions import Tables, now_ticks

SMALL = Sizes(64, services=4, slots=100, backends=8, buckets=4, endpoints=2, workers=3)


def test_fresh_tables_are_marked_empty_and_have_secret_keys() -> None:
    tables, others = Tables.allocate(SMALL), Tables.allocate(SMALL)
    assert tables.is_initialised
    assert tables.settings[0]["magic"] == MAGIC
    for key in KEYS:
        assert tables.settings[0][key] != others.settings[0][key]
        assert tables.settings[0][key] % 2 == 1
    for name, memory in tables.memory.items():
        assert name == "settings" or not memory.any()


def test_shapes() -> None:
    tables = Tables.allocate(SMALL)
    assert tables.addresses.shape == (2, 64)
    assert tables.services.shape == (2, 4)
    assert tables.slots.shape == (100,)
    assert tables.flows.shape == (4, 4)
    assert tables.traffic.shape == (3, 8)
    assert tables.lookups.shape == (3, 16)
    assert tables.verdicts.shape == (3, 128)
    assert (len(tables.service_identities), len(tables.backend_identities)) == (4, 8)


def test_a_write_to_a_view_is_in_the_memory_at_once() -> None:
    tables = Tables.allocate(SMALL)
    tables.backends[3]["generation"] = 7
    tables.backend_identities[7] = 9
    again = Tables(SMALL, tables.memory)
    assert again.backends[3]["generation"] == 7
    assert again.backend_identities[7] == 9
    assert not again.service_identities.any()


def test_tables_fit_their_own_sizes_only() -> None:
    tables = Tables.allocate(SMALL)
    fewer = Sizes(64, services=4, slots=50, backends=8, buckets=4, endpoints=2, workers=3)
    assert Tables(SMALL, tables.memory).is_initialised
    assert not Tables(fewer, tables.memory).is_initialised


@pytest.mark.parametrize("field", ["magic", "version"])
def test_tables_of_another_kind_do_not_fit(field: str) -> None:
    tables = Tables.allocate(SMALL)
    tables.settings[0][field] += 1
    assert not tables.is_initialised


def test_zero_memory_does_not_fit() -> None:
    assert not Tables(SMALL, {name: np.zeros(size, np.uint8) for name, size in SMALL.regions().items()}).is_initialised


def test_memory_may_be_longer_than_needed() -> None:
    """Maps are rounded up to pages."""
    tables = Tables(SMALL, {name: np.zeros(size + 4096, np.uint8) for name, size in SMALL.regions().items()})
    tables.initialise()
    assert tables.is_initialised
    assert tables.flows.shape == (4, 4)


def test_the_copy_in_force() -> None:
    tables = Tables.allocate(SMALL)
    assert tables.active == 0
    tables.settings[0]["active"] = 1
    assert tables.active == 1


def test_ticks_are_of_the_monotonic_clock() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> TICK_SHIFT
    now = now_ticks()
    assert 0 <= now < 1 << 32
    assert (before - now) % (1 << 32) <= 20 or (now - before) % (1 << 32) <= 20
