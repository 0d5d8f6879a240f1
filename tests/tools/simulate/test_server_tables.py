"""Tables of servers that join and leave, against plain twins."""

import random

import numpy as np
import pytest

from lbmux.tables import maglev
from lbmux.tools.simulate.server_tables import MaglevTable, RendezvousTable
from tests.tools.simulate.test_hash_tables import plain_score


class PlainRendezvous:
    def __init__(self, seeds: list[int], servers: list[int], size: int) -> None:
        self._seeds, self._members, self._size = seeds, set(servers), size
        self._slots = self._built()

    def _built(self) -> list[int]:
        return [max(self._members, key=lambda one: plain_score(self._seeds[one], at)) for at in range(self._size)]

    def join(self, server: int) -> None:
        self._members.add(server)
        self._slots = self._built()

    def leave(self, server: int) -> None:
        self._members.discard(server)
        self._slots = self._built()

    def slots(self) -> list[int]:
        return self._slots


class PlainMaglev(PlainRendezvous):
    def _built(self) -> list[int]:
        members = sorted(self._members)
        built = maglev.build([f"s{one}" for one in members], [1] * len(members), self._size)
        return [members[at] for at in built]


@pytest.mark.parametrize("kind", ["rendezvous", "maglev"])
def test_the_twin_has_the_same_table_after_each_change(kind: str) -> None:
    seeds, rng = np.random.default_rng(5).integers(0, 1 << 64, 30, np.uint64), random.Random(6)
    servers, size = list(range(10)), 251
    table = MaglevTable(servers, size) if kind == "maglev" else RendezvousTable(seeds, servers, size)
    plain = (PlainMaglev if kind == "maglev" else PlainRendezvous)(seeds.tolist(), servers, size)
    for new in range(10, 25):
        assert table.slots.tolist() == plain.slots()
        for one in (table, plain):
            one.join(new)
        gone = servers.pop(rng.randrange(len(servers)))
        servers.append(new)
        for one in (table, plain):
            one.leave(gone)
    assert table.slots.tolist() == plain.slots() and set(plain.slots()) <= set(servers)


def test_rendezvous_changes_no_other_slot() -> None:
    seeds = np.random.default_rng(7).integers(0, 1 << 64, 12, np.uint64)
    table = RendezvousTable(seeds, list(range(11)), 503)
    before = table.slots.copy()
    table.join(11)
    assert (table.slots[table.slots != 11] == before[table.slots != 11]).all() and (table.slots == 11).any()
    table.leave(11)
    assert (table.slots == before).all()
