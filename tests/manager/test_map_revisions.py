"""Maps in the store: numbers, proposals that come too late, what a dry run says, and how many are kept."""

import asyncio
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from lbmux.errors import ConfigError
from lbmux.manager import map_revisions
from lbmux.manager.map_revisions import (
    MAPS,
    MapProposal,
    MapRevision,
    StaleMapError,
    UnknownMapError,
    apply_map,
    list_maps,
    read_map,
)
from lbmux.manager.pool import Pool
from lbmux.manager.records import list_events
from lbmux.manager.store.store import Store
from lbmux.steering.steering_map import SteeringMap
from tests.manager.test_pool import ALICE, run

POPS = {"fra": ("192.0.2.1",), "ams": ("192.0.2.2",)}
PREFIXES = ("198.51.100.0/24", "203.0.113.0/24")


def map_text(*pops: str, **fractions: float) -> str:
    """A map that sends the groups to these PoPs."""
    groups = {ip_network(prefix): {pop: 1.0} for prefix, pop in zip(PREFIXES, pops, strict=True)}
    shares = {"fra": fractions} if fractions else {}
    return SteeringMap("www.example.net", 30, POPS, groups, "fra", fractions=shares).to_json()


def proposal(base: int, *pops: str, **more: Any) -> MapProposal:
    return MapProposal(map_text(*pops), base, users=90, moved=60, rtt_ms=12, rtt_ms_before=15, **more)


async def applied(pool: Pool, store: Store, what: MapProposal) -> MapRevision:
    return await apply_map(pool, store, what, ALICE, 1000.0)


def test_each_map_is_a_revision_with_what_it_moved(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        first = await applied(pool, store, proposal(0, "fra", "fra", message="begin"))
        second = await applied(pool, store, proposal(1, "fra", "ams"))
        assert (first.number, first.author, first.message, first.groups_changed) == (1, "alice", "begin", 2)
        assert (second.number, second.groups, second.groups_changed, second.moved) == (2, 2, 1, 60)
        assert await list_maps(store) == [second, first]
        assert await read_map(store) == (second, map_text("fra", "ams"))
        assert await read_map(store, 1) == (first, map_text("fra", "fra"))
        (event, _) = await list_events(store, 9)
        assert (event.kind, event.by) == ("map", "alice")
        assert event.text == "map 2: 60 of 90 users move, mean round trip 12.0 ms (15.0 ms before)"

    run(tmp_path, scenario)


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        assert (await applied(pool, store, proposal(0, "fra", "fra", dry_run=True))).number == 1
        assert await list_maps(store) == [] and await list_events(store, 9) == []
        with pytest.raises(UnknownMapError, match="no map yet"):
            await read_map(store)

    run(tmp_path, scenario)


def test_a_map_of_an_old_base_changes_nothing_also_of_two_at_once(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await applied(pool, store, proposal(0, "fra", "fra"))
        with pytest.raises(StaleMapError, match="from map 0, but map 1 is current"):
            await applied(pool, store, proposal(0, "ams", "fra"))
        both = [applied(pool, store, proposal(1, pop, "fra")) for pop in ("fra", "ams")]
        found = await asyncio.gather(*both, return_exceptions=True)
        assert sorted(type(one).__name__ for one in found) == ["MapRevision", "StaleMapError"]
        assert (await read_map(store))[0].number == 2

    run(tmp_path, scenario)


def test_something_else_than_a_map_changes_nothing(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        for text in ("", "{}", '{"version": 1}', "[" * 100):
            with pytest.raises(ConfigError, match="is not a map"):
                await applied(pool, store, MapProposal(text, 0, 1, 1, 1))
        assert await list_maps(store) == []

    run(tmp_path, scenario)


def test_the_oldest_maps_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_revisions, "KEPT_MAPS", 2)

    async def scenario(store: Store, pool: Pool) -> None:
        for base in range(4):
            await applied(pool, store, proposal(base, "fra", "fra" if base % 2 else "ams"))
        assert [one.number for one in await list_maps(store)] == [4, 3]
        assert len((await store.read(MAPS)).entries) == 2
        with pytest.raises(UnknownMapError, match="map 2 does not exist"):
            await read_map(store, 2)

    run(tmp_path, scenario)
