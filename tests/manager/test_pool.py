"""Changes of the desired state by the primary: revisions, conflicts, guard rails, overrides, events."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lbmux.backends.override_commands import set_admin_state, set_weight
from lbmux.errors import ConfigError
from lbmux.manager import pool as pools
from lbmux.manager import records
from lbmux.manager.guard_rails import GuardRailError
from lbmux.manager.pool import Pool
from lbmux.manager.pool_state import load_state, read_file
from lbmux.manager.proposals import Caller, NotPrimaryError, Proposal, TooLargeError
from lbmux.manager.records import list_events, list_revisions
from lbmux.manager.revisions import StaleRevisionError, UnknownRevisionError, split_header, with_header
from lbmux.manager.store.open_store import open_store
from lbmux.manager.store.store import ConflictError, Guard, Store, Write

ALICE = Caller("alice", "192.0.2.9")
WAIT_S = 10
PRIMARY = "election/primary"


def file(*numbers: int, weight: int = 1) -> bytes:
    backends = "\n".join(f"      - {{name: b{n}, dip: 10.0.0.{n}, weight: {weight}}}" for n in numbers)
    head = "services:\n  - name: web\n    vip: 192.0.2.1\n    protocol: tcp\n    port: 80\n    backends:\n"
    return f"{head}{backends}\n".encode()


def run(tmp_path: Path, scenario: Callable[[Store, Pool], Awaitable[None]]) -> None:
    """Run with a primary's pool; the time is always 1000."""

    async def running() -> None:
        async with asyncio.timeout(WAIT_S), open_store(str(tmp_path)) as store:
            at = await store.commit([], [Write(PRIMARY, b"")])
            await scenario(store, Pool(store, Guard(PRIMARY, at), lambda: 1000.0))

    asyncio.run(running())


def test_each_file_is_a_revision(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        first = await pool.apply(Proposal(file(1, 2), message="begin"), ALICE)
        second = await pool.apply(Proposal(file(1, 2, 3)), ALICE)
        assert first.revision and second.revision and second.changes == ("service web: backend b3 added",)
        listed = await list_revisions(store)
        assert [one.number for one in listed] == [2, 1] and listed[1] == first.revision
        assert (listed[1].author, listed[1].message, listed[1].time, listed[1].backends) == (
            "alice",
            "begin",
            1000.0,
            2,
        )
        assert await read_file(store, 1) == file(1, 2)
        assert (await load_state(store)).text == file(1, 2, 3)

    run(tmp_path, scenario)


def test_the_same_file_again_is_not_a_revision(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1)), ALICE)
        assert (await pool.apply(Proposal(file(1)), ALICE)).revision is None
        assert pool.state.revision == 1

    run(tmp_path, scenario)


def test_a_change_of_an_old_revision_is_refused(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        first = (await pool.apply(Proposal(file(1, 2)), ALICE)).revision
        assert first is not None
        mine = with_header(file(1, 2, 3), first)
        await pool.apply(Proposal(with_header(file(1, 2, 4), first)), ALICE)
        with pytest.raises(StaleRevisionError):
            await pool.apply(Proposal(mine), ALICE)
        assert split_header(mine)[1] == file(1, 2, 3) and pool.state.text == file(1, 2, 4)

    run(tmp_path, scenario)


def test_a_file_that_is_wrong_changes_nothing(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1)), ALICE)
        with pytest.raises(ConfigError) as refused:
            await pool.apply(Proposal(b"# lbmux revision 1\nservices: 5\n", "mine.yaml"), ALICE)
        assert str(refused.value).startswith("mine.yaml:2: services:")  # with the header's line
        assert pool.state.revision == 1

    run(tmp_path, scenario)


def test_a_dry_run_says_what_a_file_would_change(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1, 2, 3)), ALICE)
        outcome = await pool.apply(Proposal(file(1), dry_run=True), ALICE)
        assert outcome.revision is None and len(outcome.changes) == 2
        assert outcome.needs_force == ("service web: 2 of 3 backends would be removed",)
        assert pool.state.revision == 1 and len(await list_revisions(store)) == 1

    run(tmp_path, scenario)


def test_a_dangerous_change_needs_force(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1, 2, 3)), ALICE)
        with pytest.raises(GuardRailError):
            await pool.apply(Proposal(file(1)), ALICE)
        forced = (await pool.apply(Proposal(file(1), force=True), ALICE)).revision
        assert forced is not None and forced.forced
        with pytest.raises(GuardRailError, match="no usable backend"):
            await pool.override(set_admin_state("drain", "b1", None, 1000.0), ALICE)
        assert await pool.override(set_admin_state("drain", "b1", None, 1000.0), ALICE, force=True)

    run(tmp_path, scenario)


def test_one_service_of_a_file(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        with pytest.raises(UnknownRevisionError, match="no revision yet"):
            await pool.apply(Proposal(file(1), service="web"), ALICE)
        await pool.apply(Proposal(b"# ours\n" + file(1)), ALICE)
        await pool.apply(Proposal(file(1, 2), service="web"), ALICE)
        assert pool.state.text == b"# ours\n" + file(1, 2)

    run(tmp_path, scenario)


def test_a_rollback_is_a_revision_too(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        for weight in (1, 2, 3):
            await pool.apply(Proposal(file(1, weight=weight)), ALICE)
        back = (await pool.rollback(None, Proposal(b""), ALICE)).revision
        assert back is not None and (back.number, back.rollback_of) == (4, 2)
        assert pool.state.text == file(1, weight=2)
        await pool.rollback(1, Proposal(b""), ALICE)
        assert pool.state.text == file(1) and pool.state.revision == 5
        with pytest.raises(UnknownRevisionError):
            await pool.rollback(9, Proposal(b""), ALICE)

    run(tmp_path, scenario)


def test_an_override_ends_by_itself(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1, 2)), ALICE)
        (one,) = await pool.override(set_weight(7, "b1", None, 1000.0), ALICE, "hot", 1000.0)
        assert (one.by, one.reason, one.weight) == ("alice", "hot", 7)
        assert (await load_state(store)).overrides == (one,) and pool.state.stored.version == 1
        await pool.expire()
        await pool.expire()
        assert (await load_state(store)).overrides == () and pool.state.stored.version == 2

    run(tmp_path, scenario)


def test_a_drain_has_a_deadline(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1, 2)), ALICE)
        await pool.override(set_admin_state("drain", "b1", None, 900.0), ALICE, "disk", 2000.0, 1000.0)
        await pool.expire()
        (one,) = (await load_state(store)).overrides
        assert (one.admin_state, one.since, one.until, one.by) == ("disable", 1000.0, 2000.0, "alice")
        (event,) = await list_events(store, 1)
        assert (event.kind, event.by, event.text) == ("expiry", "manager", "web/b1: disable")

    run(tmp_path, scenario)


def test_events_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "KEPT_EVENTS", 3)
    monkeypatch.setattr(records, "KEPT_REVISIONS", 1)

    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1, 2), message="begin"), ALICE)
        await pool.override(set_admin_state("drain", "b1", None, 1000.0), ALICE)
        await pool.apply(Proposal(file(1, 2, 3)), ALICE)
        await pool.record("join", Caller("mux1"), "joined")
        events = await list_events(store, 10)
        assert [(one.number, one.kind, one.by, one.text) for one in events] == [
            (4, "join", "mux1", "joined"),
            (3, "apply", "alice", "service web: backend b3 added"),
            (2, "override", "alice", "web/b1: drain"),
        ]
        assert events[1].origin == "192.0.2.9" and events[1].revision == 2
        assert [one.number for one in await list_events(store, 1)] == [4]
        assert [one.number for one in await list_revisions(store)] == [2]  # the limit keeps only this one

    run(tmp_path, scenario)


def test_a_primary_that_was_replaced_changes_nothing(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1)), ALICE)
        await store.commit([], [Write(PRIMARY, b"another")])
        with pytest.raises(NotPrimaryError):
            await pool.apply(Proposal(file(2), force=True), ALICE)
        assert (await load_state(store)).revision == 1

    run(tmp_path, scenario)


def test_after_a_conflict_the_state_is_read_again(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1)), ALICE)
        await store.commit([], [Write("state/head", b"1")])  # not by this pool
        with pytest.raises(ConflictError):
            await pool.apply(Proposal(file(1, 2)), ALICE)
        assert (await pool.apply(Proposal(file(1, 2)), ALICE)).revision

    run(tmp_path, scenario)


def test_a_file_that_is_too_large_for_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_VALUE_BYTES", 100)

    async def scenario(store: Store, pool: Pool) -> None:
        with pytest.raises(TooLargeError, match="files/000000000001 would have"):
            await pool.apply(Proposal(file(*range(1, 100))), ALICE)

    run(tmp_path, scenario)
