"""A daemon's configuration comes from managers: at the start, with each change, and with its refusals."""

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from lbmux.api.control_server import ControlServer
from lbmux.api.requests import SetWeight
from lbmux.backends.override_commands import OverrideError, set_admin_state, set_weight
from lbmux.backends.override_store import OverrideStore
from lbmux.backends.overrides import Override, Overrides
from lbmux.config.models import Config
from lbmux.daemons import manager_link
from lbmux.daemons.manager_link import ManagerLink
from lbmux.daemons.reloader import Reloader
from lbmux.errors import ControlError
from lbmux.manager.proposals import Proposal
from lbmux.manager.records import list_events
from lbmux.metrics.black_holes import Change
from tests.api.asking import ask
from tests.daemons.test_reloader import TapRecord
from tests.manager.test_nodes import Lab, run, until
from tests.manager.test_pool import ALICE, file


def link(lab: Lab, name: str = "mux1") -> ManagerLink:
    directory = lab.path / name
    if not directory.exists():
        lab.identity(name)
    return ManagerLink([lab.managers[0].url], directory, "mux", directory / "mux.yaml")


async def started(lab: Lab) -> tuple[ManagerLink, Reloader, TapRecord]:
    """A daemon's parts as `run_daemon` puts them together."""
    made, tables = link(lab), TapRecord()
    config = await made.first_config()
    store = OverrideStore(lab.path / "mux1" / "mux.overrides", config)
    made.adopt(store)
    return made, Reloader(lab.path / "mux1" / "mux.yaml", tables, config, store), tables


def weights(config: Config | None) -> dict[str, int]:
    assert config is not None
    return {backend.name: backend.weight for service in config.services for backend in service.backends}


def test_changes_reach_the_tables(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        await lab.pool.override(set_weight(5, "b1", None, 1.0), ALICE)
        await until(lambda: lab.managers[0].state.stored.version == 1)
        made, reloader, tables = await started(lab)
        assert weights(reloader.wanted) == {"b1": 5, "b2": 1}  # before anything is forwarded
        async with made.following(reloader):
            await lab.pool.apply(Proposal(file(1, 2, 3)), ALICE)
            await until(lambda: weights(tables.config) == {"b1": 5, "b2": 1, "b3": 1})
            await lab.pool.override(set_weight(None, "b1", None, 1.0), ALICE)
            await until(lambda: weights(tables.config) == {"b1": 1, "b2": 1, "b3": 1})
            await lab.pool.apply(Proposal(file(2, 3)), ALICE)
            await until(lambda: weights(tables.config) == {"b1": 0, "b2": 1, "b3": 1})  # until its flows end
            await until(lambda: lab.managers[0].reports["mux1"].revision == 3)
        assert (lab.path / "mux1" / "mux.yaml").read_bytes() == file(2, 3)
        assert (await reloader.reload()).changes == []  # the file in force

    run(tmp_path, scenario)


def test_tables_that_are_full_refuse_a_revision(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1)), ALICE)
        await until(lambda: lab.managers[0].state.revision == 1)
        made, reloader, tables = await started(lab)
        tables.__dict__["_fits"] = False
        async with made.following(reloader):
            await lab.pool.apply(Proposal(file(1, 2)), ALICE)
            reports = lab.managers[0].reports
            await until(lambda: "mux1" in reports and "capacity 1" in reports["mux1"].refused)
        assert weights(reloader.config) == {"b1": 1} and (lab.path / "mux1" / "mux.yaml").read_bytes() == file(1)

    run(tmp_path, scenario)


def test_the_pools_overrides_replace_those_of_the_daemon(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        await lab.pool.override(set_admin_state("drain", "b2", None, 1.0), ALICE)
        await until(lambda: lab.managers[0].state.stored.version == 1)
        made = link(lab)
        config = await made.first_config()
        store = OverrideStore(lab.path / "mux1" / "mux.overrides", config)
        store.commit(Overrides({("web", "b1"): Override(1.0, "disable")}), None)
        made.adopt(store)
        again = OverrideStore(lab.path / "mux1" / "mux.overrides", config)
        assert store.overrides.admin_states == again.overrides.admin_states == {("web", "b2"): "drain"}

    run(tmp_path, scenario)


def test_local_overrides_wait_until_no_manager_is_there(tmp_path: Path) -> None:
    async def weight(request: SetWeight) -> str:
        return f"{request.backend} {request.weight}"

    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1)), ALICE)
        await until(lambda: lab.managers[0].state.revision == 1)
        made, reloader, _ = await started(lab)
        path = lab.path / "mux.sock"

        async def order(**arguments: Any) -> Any:
            return await asyncio.to_thread(ask, path, "weight", **arguments)

        async with ControlServer(path, made.handlers({SetWeight: weight})):
            async with made.following(reloader):
                await until(lambda: made.manager)
                with pytest.raises(ControlError, match="follows the manager https://"):
                    await order(backend="b1", weight=5)
            assert await order(backend="b1", weight=5) == "b1 5"
            with pytest.raises(ControlError, match="valid integer"):  # arguments are still checked
                await order(backend="b1", weight="5")

    run(tmp_path, scenario)


def test_overrides_of_a_mux_without_a_primary_are_taken_over(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        await until(lambda: lab.managers[0].state.revision == 1)
        made, reloader, tables = await started(lab)
        await reloader.change(set_weight(5, "b1", None, 1.0))
        await reloader.change(set_admin_state("drain", "b2", None, 1.0))
        states, commit = list[dict[str, int]](), tables.commit
        tables.commit = lambda plan: (states.append(weights(plan)), commit(plan))  # type: ignore[assignment,func-returns-value]
        async with made.following(reloader):
            reports = lab.managers[0].reports
            await until(lambda: "mux1" in reports and reports["mux1"].overrides == 2)
        assert {(one.backend, one.weight, one.admin_state, one.by) for one in lab.pool.state.overrides} == {
            ("b1", 5, None, "mux1"), ("b2", None, "drain", "mux1"),
        }  # fmt: skip
        assert all(state["b1"] == 5 for state in states)  # it was in force all the time
        assert not [one for one in await list_events(lab.managers[0].store, 9) if one.kind == "conflict"]

    run(tmp_path, scenario)


def test_an_override_that_the_pool_changed_meanwhile_is_a_conflict(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        await until(lambda: lab.managers[0].state.revision == 1)
        made, reloader, tables = await started(lab)
        await reloader.change(set_weight(5, "b1", None, 1.0))
        await lab.pool.override(set_weight(3, "b1", None, 2.0), ALICE)
        async with made.following(reloader):
            await until(lambda: weights(tables.config) == {"b1": 3, "b2": 1})
        (event,) = [one for one in await list_events(lab.managers[0].store, 9) if one.kind == "conflict"]
        expected = (
            "web/b1: weight 5, given at mux1 at 1970-01-01T00:00:01Z, is not in force: the pool has weight 3 by alice"
        )
        assert event.text == expected and event.by == "mux1" and expected in caplog.text
        assert "backend b1 of service web: the manager's state replaces a local override" in caplog.text

    run(tmp_path, scenario)


def test_an_override_that_needs_force_is_a_conflict(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1)), ALICE)
        await until(lambda: lab.managers[0].state.revision == 1)
        made, reloader, _ = await started(lab)
        await reloader.change(set_admin_state("disable", "b1", None, 1.0))
        async with made.following(reloader):
            await until(lambda: not reloader.overrides.of)
        (event,) = [one for one in await list_events(lab.managers[0].store, 9) if one.kind == "conflict"]
        assert "web/b1: disable, given at mux1" in event.text and "needs --force" in event.text

    run(tmp_path, scenario)


def test_a_mux_takes_overrides_while_its_manager_has_no_primary(tmp_path: Path) -> None:
    async def weight(request: SetWeight) -> str:
        return f"{request.backend} {request.weight}"

    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1)), ALICE)
        await until(lambda: lab.managers[0].state.revision == 1)
        made, reloader, _ = await started(lab)
        async with made.following(reloader):
            await until(lambda: made.manager)
            handler = made.handlers({SetWeight: weight})[SetWeight]
            with pytest.raises(OverrideError, match="follows the manager"):
                await handler(SetWeight("b1", 5))
            made.__dict__["_client"].viewed_at -= manager_link.PRIMARY_SILENCE_S + 60
            assert await handler(SetWeight("b1", 5)) == "b1 5"

    run(tmp_path, scenario)


def test_a_start_without_a_manager_uses_the_stored_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_link, "PATIENCE_S", 0.05)

    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1, weight=7)), ALICE)
        await until(lambda: lab.managers[0].state.revision == 1)
        await link(lab).first_config()
        path = lab.path / "mux1"
        gone = ManagerLink(["https://127.0.0.1:1"], path, "mux", path / "mux.yaml")
        assert weights(await gone.first_config()) == {"b1": 7}

    run(tmp_path, scenario)


def test_a_black_hole_and_its_end_are_among_the_pools_events(tmp_path: Path) -> None:
    vip = ip_address("192.0.2.1")

    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1)), ALICE)
        await until(lambda: lab.managers[0].state.revision == 1)
        made, reloader, _ = await started(lab)
        made.report_black_hole(Change(vip, True, "flooded"))  # before there is a connection
        made.report_black_hole(Change(ip_address("192.0.2.77"), True, "of no service"))  # refused, and not sent again
        made.report_black_hole(Change(vip, False, "the flood is over"))
        reported = list[str]()
        async with made.following(reloader):
            while len(reported) < 2:
                events = await list_events(lab.managers[0].store, 9)
                reported = [f"{one.by}: {one.text}" for one in reversed(events) if one.kind == "black_hole"]
                await asyncio.sleep(0.02)
        assert reported == [
            "mux1: VIP 192.0.2.1 is a black hole: flooded",
            "mux1: VIP 192.0.2.1 is no longer a black hole: the flood is over",
        ]

    run(tmp_path, scenario)
