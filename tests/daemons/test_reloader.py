"""The order of a reload's steps."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lbmux.backends.override_commands import OverrideError, add, set_admin_state, set_weight
from lbmux.backends.override_store import NotStoredError, OverrideStore
from lbmux.backends.overrides import Overrides
from lbmux.config.loader import load
from lbmux.config.models import Config
from lbmux.daemons.config_listeners import RunningConfig, on_commit, on_config
from lbmux.daemons.reloader import Reloader
from lbmux.errors import ConfigError, TableError

FILE = """
services: [{name: web, vip: 192.0.2.1, protocol: tcp, port: 80, backends: [{dip: 10.0.2.1}]}]
"""


class TapRecord:
    """Tables that only write down what is done to them."""

    def __init__(self, fits: bool = True) -> None:
        self.config: Config | None = Config(services=())
        self.steps: list[str] = []
        self._fits = fits

    def plan(self, config: Config) -> Config:
        self.steps.append("plan")
        if not self._fits:
            raise TableError("slots", 2, 1)
        return config

    def commit(self, plan: Config) -> None:
        self.steps.append("commit")
        self.config = plan

    def listen(self, step: str) -> Callable[[RunningConfig], Awaitable[None]]:
        async def listener(running: RunningConfig) -> None:
            self.running = running
            self.steps.append(step)

        return listener

    async def removals(self, config: Config) -> bool:
        self.steps.append("withdraw")
        return True


def reloader_of(path: Path, tables: TapRecord, book: OverrideStore | None = None, **more: Any) -> Reloader:
    file = path / "lbmux.yaml"
    file.write_text(FILE)
    reloader = Reloader(file, tables, book=book, removals=tables.removals, **more)
    reloader.listeners = [on_commit(tables.listen("announce")), on_config(tables.listen("probe"))]
    return reloader


def test_withdraws_before_the_tables_change_and_announces_after(tmp_path: Path) -> None:
    tables = TapRecord()
    asyncio.run(reloader_of(tmp_path, tables).reload())
    assert tables.steps == ["plan", "withdraw", "plan", "commit", "announce", "probe"]


def test_withdraws_nothing_for_a_plan_that_does_not_fit(tmp_path: Path) -> None:
    tables = TapRecord(fits=False)
    reloader = reloader_of(tmp_path, tables)
    with pytest.raises(TableError):
        asyncio.run(reloader.reload())
    assert tables.steps == ["plan"]
    assert reloader.wanted == Config(services=())


def with_orders(path: Path, tables: TapRecord, **more: Any) -> tuple[Reloader, OverrideStore]:
    """Return a reloader whose file is in force."""
    reloader_of(path, tables)
    tables.config = load(path / "lbmux.yaml")
    book = OverrideStore(path / "orders", tables.config)
    return reloader_of(path, tables, book, **more), book


def without_backends(config: Config, overrides: Overrides, /, *, dry_run: bool = False) -> Config:
    services = tuple(service.model_copy(update={"backends": ()}) for service in config.services)
    return config.model_copy(update={"services": services})


def test_changed_states_reach_the_tables_and_do_not_configure_probers(tmp_path: Path) -> None:
    tables = TapRecord()
    reloader, _ = with_orders(tmp_path, tables, effective=without_backends)
    asyncio.run(reloader.update_states())
    assert tables.steps == ["plan", "withdraw", "plan", "commit", "announce"]
    assert names(tables.running.wanted) == {"10.0.2.1:80": 1} and names(tables.running.effective) == {}


def test_a_removal_gets_the_time_of_the_clock(tmp_path: Path) -> None:
    tables = TapRecord()
    reloader, book = with_orders(tmp_path, tables, clock=lambda: 1234.0)
    reloader.path.write_text(FILE.replace("10.0.2.1", "10.0.2.2"))
    asyncio.run(reloader.reload())
    assert [one.since for one in book.overrides.removals.values()] == [1234.0]


def names(config: Config | None) -> dict[str, int]:
    assert config is not None
    return {backend.name: backend.weight for backend in config.services[0].backends}


NEW = add("web", {"name": "new", "dip": "10.0.2.9"}, 0)


def test_an_override_is_in_force_and_survives_reloads(tmp_path: Path) -> None:
    tables = TapRecord()
    reloader, book = with_orders(tmp_path, tables)
    assert asyncio.run(reloader.change(NEW)) == [("web", "new")]
    asyncio.run(reloader.reload())
    assert names(tables.config) == names(reloader.wanted) == {"10.0.2.1:80": 1, "new": 1}
    assert OverrideStore(tmp_path / "orders", reloader.config).overrides == book.overrides


def test_a_reload_names_the_overrides_that_the_file_does_not_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reloader, _ = with_orders(tmp_path, TapRecord())
    asyncio.run(reloader.change(set_weight(7, "10.0.2.1:80", None, 0)))
    reloader.path.write_text(FILE.replace("{dip: 10.0.2.1}", "{dip: 10.0.2.1, weight: 3}"))
    with caplog.at_level("INFO"):
        lines = asyncio.run(reloader.reload())
    (line,) = lines.overrides
    assert "backend 10.0.2.1:80: weight 7 by command, not the file's 3" in line
    assert line in caplog.text


def test_an_override_that_does_not_fit_is_not_kept(tmp_path: Path) -> None:
    tables = TapRecord(fits=False)
    reloader, book = with_orders(tmp_path, tables)
    with pytest.raises(TableError):
        asyncio.run(reloader.change(NEW))
    with pytest.raises(OverrideError):
        asyncio.run(reloader.change(add("nope", {}, 0)))
    assert book.overrides == Overrides() and names(reloader.wanted) == {"10.0.2.1:80": 1}
    assert not (tmp_path / "orders").exists()


def test_a_backend_that_is_no_longer_in_the_file_is_removed(tmp_path: Path) -> None:
    tables = TapRecord()
    reloader, book = with_orders(tmp_path, tables)
    reloader.path.write_text(FILE.replace("10.0.2.1", "10.0.2.2"))
    assert asyncio.run(reloader.reload()).changes == [
        "service web: backend 10.0.2.1:80 removed", "service web: backend 10.0.2.2:80 added"
    ]  # fmt: skip
    assert names(tables.config) == {"10.0.2.2:80": 1, "10.0.2.1:80": 0}
    (one,) = book.overrides.removals.values()
    assert one.reason == "no longer in the configuration"


def test_an_added_backend_that_the_file_has_now_belongs_to_the_file(tmp_path: Path) -> None:
    tables = TapRecord()
    reloader, book = with_orders(tmp_path, tables)
    asyncio.run(reloader.change(NEW))
    reloader.path.write_text(FILE.replace("{dip: 10.0.2.1}", "{dip: 10.0.2.1}, {name: new, dip: 10.0.2.9, weight: 5}"))
    asyncio.run(reloader.reload())
    assert names(tables.config) == {"10.0.2.1:80": 1, "new": 5} and book.overrides == Overrides()


def test_an_unusable_file_leaves_overrides_in_force(tmp_path: Path) -> None:
    reloader, book = with_orders(tmp_path, TapRecord())
    asyncio.run(reloader.change(NEW))
    asyncio.run(reloader.change(set_admin_state("remove", "new", None, 0)))
    before = book.overrides
    reloader.path.write_text("services: nonsense")
    with pytest.raises(ConfigError):
        asyncio.run(reloader.reload())
    assert book.overrides is before and before.removals


def is_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_override_that_cannot_be_stored_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = TapRecord()
    reloader, book = with_orders(tmp_path, tables)
    before = tables.config
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", is_full)
        with pytest.raises(NotStoredError, match="No space left on device; nothing was changed"):
            asyncio.run(reloader.change(NEW))
    assert tables.steps == [] and tables.config is before and reloader.overrides == book.overrides == Overrides()
    asyncio.run(reloader.change(NEW))
    assert OverrideStore(tmp_path / "orders", reloader.config).overrides == book.overrides


def test_an_override_that_cannot_be_stored_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = TapRecord()
    reloader, book = with_orders(tmp_path, tables)
    (tmp_path / "orders").mkdir()
    with pytest.raises(NotStoredError, match="the change lasts until a restart"):
        asyncio.run(reloader.change(NEW))
    assert names(tables.config) == {"10.0.2.1:80": 1, "new": 1} and tables.steps[-1] == "probe"
    (tmp_path / "orders").rmdir()
    asyncio.run(reloader.update_states())  # the next change stores it
    assert OverrideStore(tmp_path / "orders", reloader.config).overrides == book.overrides


def test_an_override_that_does_not_fit_is_not_stored_either(tmp_path: Path) -> None:
    reloader, _ = with_orders(tmp_path, TapRecord(fits=False))
    with pytest.raises(TableError):
        asyncio.run(reloader.change(NEW))
    assert [path.name for path in tmp_path.iterdir()] == ["lbmux.yaml"]


def test_a_reload_succeeds_if_overrides_cannot_be_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = TapRecord()
    reloader, _ = with_orders(tmp_path, tables)
    reloader.path.write_text(FILE.replace("10.0.2.1", "10.0.2.2"))
    monkeypatch.setattr(os, "fsync", is_full)
    *_, last = asyncio.run(reloader.reload()).changes
    assert last == f"overrides: not stored in {tmp_path}/orders: changes last until a restart"
    assert names(tables.config) == {"10.0.2.2:80": 1, "10.0.2.1:80": 0}


def test_a_removal_ends_even_if_overrides_cannot_be_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = TapRecord()
    reloader, _ = with_orders(tmp_path, tables)
    asyncio.run(reloader.change(NEW))
    monkeypatch.setattr(os, "fsync", is_full)
    asyncio.run(reloader.follow(lambda *_: (Overrides(), [])))
    assert names(tables.config) == {"10.0.2.1:80": 1}


def test_a_plan_alone_puts_nothing_in_force(tmp_path: Path) -> None:
    dry_runs: list[bool] = []

    def effective(config: Config, overrides: Overrides, /, *, dry_run: bool = False) -> Config:
        dry_runs.append(dry_run)
        return config

    tables = TapRecord()
    reloader = reloader_of(tmp_path, tables, effective=effective)
    asyncio.run(reloader.reload())
    before, tables.steps = tables.config, []
    planned = asyncio.run(reloader.plan_only(Config(services=()), Overrides()))
    assert planned == Config(services=()) and tables.steps == ["plan"] and tables.config is before
    assert dry_runs == [False, True]
    tables.__dict__["_fits"] = False
    with pytest.raises(TableError):
        asyncio.run(reloader.plan_only(Config(services=()), Overrides()))
