"""Flows of tables that another version or other sizes left: which come along, and that packets find them."""

import itertools
import random
from dataclasses import asdict
from ipaddress import IPv4Address
from typing import Any

import numpy as np
import pytest
from numpy.lib import recfunctions
from numpy.typing import NDArray

from lbmux.addresses import mac_to_int
from lbmux.config.models import Config
from lbmux.datapath.tables import CLOSING, HIT, NEW, ROWS, TRUSTED, UNTRUSTED
from lbmux.datapath.verdicts import Verdict
from lbmux.linux.next_hops import NextHop
from lbmux.tables.migration import copy_keys, move_flows
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.targets.hash_keys import NAMES as KEYS
from lbmux.targets.hash_keys import spreads
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables, now_ticks
from tests.datapath.craft import FIN, SYN, Craft
from tests.datapath.harness import Frames

LOCAL, MAC = IPv4Address("10.0.0.1"), mac_to_int("02:00:00:00:00:09")
CLIENTS = range(300)

SIZES = [1 << width for width in range(9, 20)]


def _good_keys() -> list[int]:
    """Return the same keys in every run, which suit a flow table of any of the sizes."""
    numbers = random.Random(1)
    drawn = (numbers.getrandbits(64) | 1 for _ in range(10_000))
    return list(itertools.islice((key for key in drawn if all(spreads(key, size) for size in SIZES)), len(KEYS)))


GOOD_KEYS = _good_keys()


class Left:
    """Tables that say of themselves how they are laid out, as the pinned ones of an earlier process do.

    There every row has fields, also one that is a plain number.
    """

    def __init__(self, tables: Tables) -> None:
        self.description: dict[str, Any] = {"sizes": asdict(tables.sizes)}
        identities = np.concatenate([tables.service_identities, tables.backend_identities])
        self._rows: dict[str, NDArray[Any]] = {
            "settings": tables.settings,
            "backends": tables.backends,
            "flows": tables.flows.reshape(-1),
            "identities": identities.view(np.dtype(ROWS["identities"].descr)),
        }

    def rows(self, region: str) -> NDArray[Any]:
        return self._rows[region]

    def replace(self, region: str, rows: NDArray[Any]) -> None:
        self._rows[region] = rows


class Mux:
    """A mux's tables with a configuration in force, and packets through any worker."""

    def __init__(self, config: Config, workers: int = 1, after: Left | None = None) -> None:
        self.tables = Tables.allocate(sizes_for(config, workers))
        if after is not None:
            copy_keys(after, self.tables)
        else:  # the same keys in every run: with others a flow may be evicted
            for name, key in zip(KEYS, GOOD_KEYS, strict=True):
                self.tables.settings[0][name] = key
        self.control = control = MuxTables(self.tables, LOCAL)
        control.commit(control.plan(config))
        for destination in control.destinations():
            control.set_next_hop(destination, NextHop(7, MAC, MAC + int(destination), 1500))
        self.moved = None if after is None else move_flows(after, self.tables)

    def send(self, clients: range = CLIENTS, worker: int = 0, now: int | None = None, **fields: Any) -> dict[int, int]:
        """Return the backends that packets of these clients went to, from the outer headers."""
        batch = Frames([Craft(source=client.to_bytes(4), **fields).frame() for client in clients])
        Worker(self.tables, worker).forward(batch, now_ticks() if now is None else now)
        results = batch.results()
        assert {verdict for verdict, _, _ in results} == {Verdict.FORWARDED}
        return {client: frame[33] for client, (_, _, frame) in zip(clients, results, strict=True)}

    def looked_up(self, what: int) -> int:
        return int(self.tables.lookups[:, what].sum())


def config(*numbers: int, others: tuple[str, ...] = (), limit: int = 16384) -> Config:
    """The service "web" with these backends; the ``others`` come first, so rows of a new table are not the old ones."""
    numbered = {"web": numbers} | {name: (90 + at,) for at, name in enumerate(others)}
    services = [
        {"name": name, "vip": f"192.0.2.{1 + at}", "protocol": "tcp", "port": 80,
         "backends": [{"name": f"{name}{n}", "dip": f"10.1.0.{n}"} for n in backends]}
        for at, (name, backends) in enumerate(numbered.items())
    ]  # fmt: skip
    document = {"maglev": {"size": 251}, "flows": {"limit": limit}, "services": services[::-1]}
    return Config.model_validate(document)


def assert_kept(before: dict[int, int], mux: Mux) -> None:
    """Every flow is found where it is looked for, and has the backend it had."""
    assert mux.moved == len(before)
    assert mux.send() == before
    assert mux.looked_up(HIT) == len(before)
    assert mux.looked_up(NEW) == len(before), "entered as they were moved, and no one later"


@pytest.mark.parametrize("limit", [2048, 16384, 262144], ids=["smaller", "same", "larger"])
def test_into_tables_of_another_size(limit: int) -> None:
    first = Mux(config(1, 2, 3))
    assert_kept(first.send(), Mux(config(1, 2, 3, limit=limit), after=Left(first.tables)))


def test_other_rows_of_services_and_backends() -> None:
    first = Mux(config(1, 2, 3))
    before = first.send()
    second = Mux(config(5, 4, 3, 2, 1, others=("mail", "news")), after=Left(first.tables))
    assert second.tables.service_identities[0] != first.tables.service_identities[0]
    assert_kept(before, second)
    fresh = Mux(config(5, 4, 3, 2, 1, others=("mail", "news")))
    assert fresh.send() != before, "by the Maglev table alone some would have gone elsewhere"


@pytest.mark.parametrize(("workers_before", "workers"), [(1, 3), (3, 1), (3, 2)])
def test_another_number_of_workers(workers_before: int, workers: int) -> None:
    first, before = Mux(config(1, 2, 3), workers_before), dict[int, int]()
    for worker in range(workers_before):
        before |= first.send(range(100 * worker, 100 * worker + 100), worker)
    second = Mux(config(1, 2, 3, 4, 5), workers, Left(first.tables))
    assert second.moved == len(before)
    backends = dict[int, int]()
    for worker in range(workers_before):
        backends |= second.send(range(100 * worker, 100 * worker + 100), min(worker, workers - 1))
    assert backends == before
    assert second.looked_up(HIT) == len(before)


def test_of_several_entries_of_a_flow_the_latest_counts() -> None:
    """Tables of earlier versions had a part for each CPU."""
    first = Mux(config(1, 2, 3))
    before, left = first.send(), Left(first.tables)
    stale = left.rows("flows").copy()
    stale["seen"] -= 50
    stale["target"] = first.control.rows["web", "web3"]
    left.replace("flows", np.concatenate([stale, left.rows("flows"), stale]))
    assert_kept(before, Mux(config(1, 2, 3, limit=65536), after=left))


def test_state_and_last_packet_are_kept() -> None:
    first, now = Mux(config(1, 2, 3)), now_ticks()
    first.send(range(100), now=now - 900)
    for _ in range(2):
        first.send(range(100, 200), now=now - 800)
    first.send(range(200, 300), flags=SYN, now=now - 700)
    first.send(range(200, 300), flags=FIN, now=now - 600)
    flows = Mux(config(1, 2, 3, limit=65536), after=Left(first.tables)).tables.flows.reshape(-1)
    for state, seen in ((UNTRUSTED, now - 900), (TRUSTED, now - 800), (CLOSING, now - 600)):
        of_state = flows[flows["state"] == state]
        assert len(of_state) == 100
        assert set(of_state["seen"].tolist()) == {seen & 0xFFFFFFFF}


def test_flows_of_removed_backends_and_services_are_left_out() -> None:
    first = Mux(config(1, 2, 3, others=("mail",)))
    before = first.send()
    first.send(destination=bytes([192, 0, 2, 2]))
    second = Mux(config(1, 3), after=Left(first.tables))
    kept = {client: number for client, number in before.items() if number != 2}
    assert second.moved == len(kept) < len(before)
    after = second.send()
    assert {client: after[client] for client in kept} == kept
    assert set(after.values()) == {1, 3}


def test_a_layout_with_one_more_field() -> None:
    first = Mux(config(1, 2, 3))
    before, left = first.send(), Left(first.tables)
    flows = left.rows("flows")
    left.replace("flows", recfunctions.append_fields(flows, "mark", np.ones(len(flows), "u4"), usemask=False))
    assert_kept(before, Mux(config(1, 2, 3), after=left))


def test_a_layout_in_another_order() -> None:
    first = Mux(config(1, 2, 3))
    before, left = first.send(), Left(first.tables)
    flows = left.rows("flows")
    assert flows.dtype.names is not None
    left.replace("flows", recfunctions.repack_fields(flows[list(flows.dtype.names[::-1])]))
    assert_kept(before, Mux(config(1, 2, 3), after=left))


@pytest.mark.parametrize("field", ["state", "ports", "target", "high"])
def test_a_layout_that_lacks_a_field_leaves_flows_behind(field: str, caplog: pytest.LogCaptureFixture) -> None:
    first = Mux(config(1, 2, 3))
    first.send()
    left = Left(first.tables)
    left.replace("flows", recfunctions.drop_fields(left.rows("flows"), field))
    second = Mux(config(1, 2, 3), after=left)
    assert second.moved == 0
    assert "left behind" in caplog.text
    second.send()


def test_a_flow_of_a_nonexistent_row_is_skipped() -> None:
    first = Mux(config(1, 2, 3))
    before, left = first.send(), Left(first.tables)
    flows = left.rows("flows").copy()
    (places,) = np.nonzero(flows["state"])
    flows["owner"][places[0]] = flows["target"][places[1]] = 0xFFFF
    left.replace("flows", flows)
    assert Mux(config(1, 2, 3), after=left).moved == len(before) - 2


def test_a_flow_of_a_rows_former_owner_is_skipped() -> None:
    """Its backend is gone; the row has another one now."""
    first = Mux(config(1, 2, 3))
    before = first.send()
    first.tables.backends["generation"][first.control.rows["web", "web2"]] += 1
    second = Mux(config(1, 2, 3, limit=65536), after=Left(first.tables))
    assert second.moved == sum(number != 2 for number in before.values())


def test_trusted_flows_keep_to_their_share_of_a_smaller_table() -> None:
    first = Mux(config(1, 2, 3, limit=65536))
    for _ in range(2):
        first.send(range(3000))
    tables = Mux(config(1, 2, 3, limit=1024), after=Left(first.tables)).tables
    trusted = (tables.flows["state"] == TRUSTED).sum(axis=-1)
    assert trusted.max() == tables.settings[0]["trusted_ways"] == 3
    assert trusted.sum() > 1024


def test_keys_stay_secret_and_the_same() -> None:
    first = Mux(config(1))
    second = Mux(config(1, limit=65536), after=Left(first.tables))
    assert [first.tables.settings[0][key] for key in KEYS] == [second.tables.settings[0][key] for key in KEYS]


def test_a_key_that_would_crowd_the_new_table_is_not_kept() -> None:
    first = Mux(config(1))
    first.tables.settings[0]["key2"] = 1
    second = Mux(config(1, limit=65536), after=Left(first.tables))
    assert second.tables.settings[0]["key2"] != 1
    assert first.tables.settings[0]["key1"] == second.tables.settings[0]["key1"]
