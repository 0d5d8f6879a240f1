"""Backends are reported as drained, and removals end, when the last flow has ended."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pytest

from lbmux.backends.override_commands import set_admin_state
from lbmux.backends.override_store import OverrideStore
from lbmux.backends.overrides import Overrides
from lbmux.config.models import BackendKey, Config, Service
from lbmux.daemons import drain_watch
from lbmux.daemons.drain_watch import DrainWatch
from lbmux.daemons.reloader import Reloader, nothing_to_withdraw
from tests.backends.test_overrides import backend, configured

B1, B2 = ("web", "b1"), ("web", "b2")


@dataclass
class Tables:
    """Tables whose flows the test sets."""

    config: Config
    flows: set[BackendKey]

    def plan(self, config: Config) -> Config:
        return config

    def commit(self, plan: Config) -> None:
        self.config = plan

    @property
    def services(self) -> tuple[Service, ...]:
        return self.config.services

    @property
    def rows(self) -> set[BackendKey]:
        return {(service.name, backend.name) for service in self.services for backend in service.backends}

    def without_flows(self, asked: Collection[BackendKey]) -> set[BackendKey]:
        return set(asked) - self.flows


def of(tables: Tables) -> tuple[DrainWatch[Tables], Reloader]:
    reloader = Reloader(Path("none"), tables, book=OverrideStore(None, tables.config), removals=nothing_to_withdraw)
    return DrainWatch(reloader, lambda: tables, Tables.without_flows), reloader


async def looked(watcher: DrainWatch[Tables]) -> None:
    task = asyncio.create_task(watcher.watch())
    await asyncio.sleep(0.1)
    task.cancel()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_watch, "POLL_S", 0.01)


def test_without_weight_and_without_flows_is_drained() -> None:
    tables = Tables(configured(backend(1, weight=0), backend(2)), set())
    watcher, _ = of(tables)
    asyncio.run(looked(watcher))
    assert B1 in watcher and B2 not in watcher
    watcher.forget([B1])
    assert B1 not in watcher


def test_a_backend_with_a_flow_is_not_drained() -> None:
    tables = Tables(configured(backend(1, weight=0), backend(2)), {B1})
    watcher, _ = of(tables)
    asyncio.run(looked(watcher))
    assert B1 not in watcher


def test_a_backend_with_weight_again_is_not_drained() -> None:
    tables = Tables(configured(backend(1, weight=0), backend(2)), set())
    watcher, _ = of(tables)
    asyncio.run(looked(watcher))
    tables.config = configured(backend(1), backend(2))
    asyncio.run(looked(watcher))
    assert B1 not in watcher


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_host_without_connections_ends_a_drain_whatever_the_tables_say(
    is_empty: bool,
) -> None:
    tables, asked = Tables(configured(backend(1, weight=0), backend(2)), {B1}), list[float]()

    def host_is_empty(key: BackendKey, since: float) -> bool:
        assert key == B1
        asked.append(since)
        return is_empty

    watcher, reloader = of(tables)
    watcher = DrainWatch(reloader, lambda: tables, Tables.without_flows, host_is_empty)
    before = time.monotonic()
    asyncio.run(looked(watcher))
    assert (B1 in watcher) == is_empty
    assert min(asked) >= before + drain_watch.LAST_SYN_S


@pytest.mark.parametrize("flows", [set(), {B1}], ids=["no flow", "a flow"])
def test_a_backend_without_a_flow_is_removed(flows: set[BackendKey]) -> None:
    tables = Tables(configured(backend(1), backend(2), idle={"tcp_s": 1}), flows)
    watcher, reloader = of(tables)
    asyncio.run(reloader.change(set_admin_state("remove", "b1", "web", 1000.0)))  # long ago
    assert tables.rows >= {B1, B2}
    asyncio.run(looked(watcher))
    assert (B1 in tables.rows) == bool(flows) == (B1 in reloader.overrides.removals)


def test_a_backend_out_of_the_tables_has_left() -> None:
    tables = Tables(configured(backend(1), backend(2)), {B1})
    watcher, reloader = of(tables)
    asyncio.run(reloader.change(set_admin_state("remove", "b1", "web", 1000.0)))
    tables.config = configured(backend(2))  # it died
    asyncio.run(looked(watcher))
    assert reloader.overrides.removals == {} and reloader.overrides != Overrides()
