"""Changes of the pool's desired state by the primary: apply, roll back, override.

Each change is one commit with a guard on the election and on what it is based on, so a primary that was replaced, or
one that works from an old state, changes nothing. The event about it is part of the commit.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from lbmux.backends.override_commands import Change
from lbmux.config.changes import changes
from lbmux.config.known_services import parse_known
from lbmux.config.models import BackendKey, Config
from lbmux.errors import ConfigError
from lbmux.manager import guard_rails, route_overrides, stored_overrides
from lbmux.manager.documents import Canary, Event, Impact, Revision, RouteOverride, StoredOverride, StoredOverrides
from lbmux.manager.guard_rails import GuardRailError, Wanted
from lbmux.manager.impact import NoNodes, Plans, Survey, may_move, moved_connections
from lbmux.manager.pool_state import CANARY, HEAD, OVERRIDES, PoolState, base_of, load_state, read_file
from lbmux.manager.proposals import Applied, Caller, CanaryError, NotPrimaryError, Proposal, TooLargeError
from lbmux.manager.records import EventKind, event_writes, next_event_number, revision_writes
from lbmux.manager.revisions import (
    UnknownRevisionError,
    check_current,
    new_revision,
    rollback_target,
    split_header,
)
from lbmux.manager.route_overrides import RouteOrder
from lbmux.manager.service_merge import merge_service
from lbmux.manager.store.store import MAX_VALUE_BYTES, ConflictError, Guard, Store, Write


class Pool:
    """The primary's view of the store; ``guard`` holds while it is primary.  One change at a time.

    ``survey`` asks the live nodes; ``most_moved``: the share of live connections that a change may move without force.
    """

    def __init__(
        self, store: Store, guard: Guard, clock: Callable[[], float] = time.time, survey: Survey | None = None,
        most_moved: float = guard_rails.MOST_MOVED,
    ) -> None:  # fmt: skip
        self._store, self._guard, self._clock = store, guard, clock
        self._survey, self._most_moved = survey or NoNodes(), most_moved
        self._lock = asyncio.Lock()
        self._next_event, self._is_loaded = 0, False
        self.state = PoolState()

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Hold the lock for one change, with the state loaded from the store."""
        async with self._lock:
            if not self._is_loaded:
                await self.load()
            yield

    async def load(self) -> None:
        """Read the state from the store."""
        self.state = await load_state(self._store, self.state)
        self._next_event, self._is_loaded = await next_event_number(self._store), True

    async def apply(self, proposal: Proposal, caller: Caller) -> Applied:
        """Make a file the current revision.

        Raise StaleRevisionError, ConfigError, MergeError, GuardRailError or TooLargeError, and change nothing.
        """
        async with self._changing():
            if (canary := self.state.canary) is not None and not proposal.dry_run:
                raise CanaryError(
                    f"revision {canary.revision} is on its canary {canary.mux}: wait until its soak ends, or end it "
                    f"with `lbmux rollback`"
                )
            expected, text = split_header(proposal.text)
            check_current(expected, self.state.revision)
            if proposal.service is not None:
                self._config()
                arguments = self.state.text, proposal.text, proposal.service, Path(proposal.name)
                text = await asyncio.to_thread(merge_service, *arguments)
            whole = proposal.text if proposal.service is None else text  # with its header: lines keep their numbers
            config = await asyncio.to_thread(_parse, text, whole, Path(proposal.name))
            return await self._put(text, config, proposal, caller)

    async def rollback(self, number: int | None, proposal: Proposal, caller: Caller) -> Applied:
        """Make an earlier revision's file the current one, as a new revision; None: the one before the current."""
        async with self._changing():
            target = rollback_target(self.state.revision, number)
            text = await read_file(self._store, target)
            config = await asyncio.to_thread(parse_known, text, Path(f"revision {target}"))
            return await self._put(text, config, proposal, caller, rollback_of=target)

    async def override(
        self, change: Change, caller: Caller, reason: str = "", until: float | None = None,
        deadline: float | None = None, *, force: bool = False,
    ) -> list[StoredOverride]:  # fmt: skip
        """Change overrides of backends, and return the overrides of the affected backends."""
        async with self._changing():
            config = self._config()
            terms = stored_overrides.Terms(caller.name, reason, until, deadline)
            stored, keys = stored_overrides.changed(self.state.overrides, config, change, terms)
            after = Wanted(config, stored_overrides.as_overrides(stored))
            if not force and (reasons := await self._reasons(after, await self._impact(after))):
                raise GuardRailError(reasons)
            await self._put_overrides("override", caller, self._next(stored), keys)
            return [one for one in stored if (one.service, one.backend) in keys]

    async def announce(
        self, order: RouteOrder, caller: Caller, reason: str = "", until: float | None = None
    ) -> tuple[RouteOverride, ...]:
        """Withdraw or announce VIPs, and return the overrides that act on them then; raise UnknownVipError."""
        async with self._changing():
            terms, config = stored_overrides.Terms(caller.name, reason, until), self.state.config or Config(services=())
            routes = route_overrides.changed_routes(self.state.stored.routes, config, order, terms, self._clock())
            await self._put_overrides("override", caller, self._next(routes=routes))
            return route_overrides.concerned(routes, order)

    async def expire(self) -> None:
        """Drop the overrides that have ended, and disable backends whose deadline has passed."""
        async with self._changing():
            remaining = stored_overrides.unexpired(self.state.overrides, self._clock())
            gone = [(one.service, one.backend) for one in self.state.overrides if one not in remaining]
            routes = route_overrides.unexpired_routes(self.state.stored.routes, self._clock())
            await self._put_overrides("expiry", Caller("manager"), self._next(remaining, routes), gone)

    async def record(
        self, kind: EventKind, caller: Caller, text: str, *more: Write, guards: Collection[Guard] = ()
    ) -> None:
        """Add an event, with the writes that it describes; raise ConflictError if a guard does not hold."""
        async with self._changing():
            await self._commit(guards, [*more, *self._event(kind, caller, text)])

    async def _put(
        self, text: bytes, config: Config, proposal: Proposal, caller: Caller, *, rollback_of: int | None = None
    ) -> Applied:
        state = self.state
        before = state.overrides if state.base is None else state.base.stored.overrides
        stored = stored_overrides.fitting(before, config)
        after = Wanted(config, stored_overrides.as_overrides(stored))
        routes = state.stored.routes  # while there is a canary the other muxes need all of them
        kept = self._next(stored, routes if proposal.canary else route_overrides.fitting_routes(routes, config))
        plan = self._survey.plans(text, kept) if proposal.dry_run else None
        impact = await self._impact(after, plan)
        reasons = await self._reasons(after, impact)
        old = state.config or Config(services=())
        differences = tuple(await asyncio.to_thread(changes, old, config))
        if proposal.dry_run or text == state.text:
            return Applied(None, differences, reasons, impact)
        if reasons and not proposal.force:
            raise GuardRailError(reasons)
        revision = new_revision(
            state.revision + 1, text, config, caller.name, self._clock(), proposal.message,
            forced=bool(reasons), rollback_of=rollback_of,
        )  # fmt: skip
        kind: EventKind = "apply" if rollback_of is None else "rollback"
        writes = [
            *revision_writes(revision, text),
            *self._event(kind, caller, _summary(revision, differences), revision.number),
        ]
        overrides, canary = self._overrides(kept), self._canary(proposal, stored)
        if canary is not None or state.canary is not None:
            writes.append(Write(CANARY, canary.model_dump_json().encode() if canary else None))
        head = await self._commit([Guard(HEAD, state.head_at), Guard(OVERRIDES, state.overrides_at)],
                                  [*writes, *overrides])  # fmt: skip
        kept = kept if overrides else state.stored
        self.state = PoolState(
            head, revision.number, head, text, config, kept, head if overrides else state.overrides_at, state.epoch,
            canary, base_of(canary, state.text, old, kept) if canary else None,
        )  # fmt: skip
        return Applied(revision, differences, reasons, impact)

    def _canary(self, proposal: Proposal, stored: tuple[StoredOverride, ...]) -> Canary | None:
        """Return the canary of a new revision, if there is to be one."""
        if proposal.canary is None:
            return None
        number, dropped = self.state.revision, [one for one in self.state.overrides if one not in stored]
        if not number:
            raise CanaryError("the first revision has no canary: there is nothing to compare it with")
        return Canary(
            mux=proposal.canary, revision=number + 1, base=number, soak_s=proposal.soak_s, dropped=tuple(dropped)
        )  # fmt: skip

    async def end_canary(self, revision: int, reason: str) -> None:
        """Let a revision go on to all nodes after its soak, or, for a reason, roll it back."""
        async with self._changing():
            canary, base, caller = self.state.canary, self.state.base, Caller("manager")
            if canary is None or base is None or canary.revision != revision:  # rolled back by command meanwhile
                return
            if reason:
                message = f"canary {canary.mux} of revision {revision}: {reason}"
                await self._put(base.text, base.config, Proposal(b"", message=message, force=True), caller,
                                rollback_of=base.revision)  # fmt: skip
                return
            text = f"canary {canary.mux} of revision {revision} passed its soak: the revision goes to all nodes"
            writes = [Write(CANARY, None), *self._event("canary", caller, text, revision)]
            at = await self._commit([Guard(HEAD, self.state.head_at)], writes)
            self.state = replace(self.state, at=at, canary=None, base=None)

    async def _impact(self, after: Wanted, plan: Awaitable[Plans] | None = None) -> Impact | None:
        """Return what a change does to live connections; with ``plan`` also to slots.

        Without it, the agents are asked only if the change may move connections.
        """
        before = self.state.wanted
        if plan is None and not await asyncio.to_thread(may_move, before, after):
            return None
        live, plans = await asyncio.gather(self._survey.connections(), plan or NoNodes().plans(b"", self.state.stored))
        flows = await asyncio.to_thread(moved_connections, before, after, live.counts)
        return Impact(
            connections=flows.all, moving=flows.move, remaining=flows.remain, slots=plans.slots, refused=plans.refused,
            silent=(*live.silent, *plans.silent),
        )  # fmt: skip

    async def _reasons(self, after: Wanted, impact: Impact | None) -> tuple[str, ...]:
        """Return why a change needs force."""
        moved = None if impact is None else impact.moved
        return tuple(await asyncio.to_thread(guard_rails.check, self.state.wanted, after, moved, self._most_moved))

    async def _put_overrides(
        self, kind: EventKind, caller: Caller, new: StoredOverrides, keys: Collection[BackendKey] = ()
    ) -> None:
        """Store overrides; ``keys``: the backends whose overrides change."""
        if not (writes := self._overrides(new)):
            return
        state, by_key = self.state, {(one.service, one.backend): one for one in new.overrides}
        texts = [
            f"{'/'.join(key)}: {stored_overrides.describe(by_key[key]) if key in by_key else 'as in the file'}"
            for key in keys
        ]
        texts += route_overrides.describe_differences(state.stored.routes, new.routes)
        writes += self._event(kind, caller, "; ".join(texts))
        guards = [Guard(HEAD, state.head_at), Guard(OVERRIDES, state.overrides_at)]
        at = await self._commit(guards, writes)
        self.state = replace(state, at=at, stored=new, overrides_at=at)

    async def _commit(self, guards: Collection[Guard], writes: Collection[Write]) -> int:
        """Commit as primary. After an error, the next change starts from what is in the store."""
        large = next((one for one in writes if one.value is not None and len(one.value) > MAX_VALUE_BYTES), None)
        if large is not None and large.value is not None:
            raise TooLargeError(large.key, len(large.value), MAX_VALUE_BYTES)
        self._is_loaded = False
        try:
            at = await self._store.commit([self._guard, *guards], writes)
        except ConflictError as error:
            if self._guard.key in error.keys:
                raise NotPrimaryError from error
            raise
        self._next_event, self._is_loaded = self._next_event + 1, True
        return at

    def _config(self) -> Config:
        if self.state.config is None:
            raise UnknownRevisionError(0)
        return self.state.config

    def _next(
        self, overrides: tuple[StoredOverride, ...] | None = None, routes: tuple[RouteOverride, ...] | None = None
    ) -> StoredOverrides:
        """Return the next version of the overrides; None: as they are."""
        now = self.state.stored
        return StoredOverrides(
            version=now.version + 1, overrides=now.overrides if overrides is None else overrides,
            routes=now.routes if routes is None else routes,
        )  # fmt: skip

    def _overrides(self, new: StoredOverrides) -> list[Write]:
        """Return the writes for the overrides; none if they are unchanged."""
        now = self.state.stored
        if (new.overrides, new.routes) == (now.overrides, now.routes):
            return []
        exclude = None if new.routes else {"routes"}  # managers of the version before do not know it
        return [Write(OVERRIDES, new.model_dump_json(exclude=exclude).encode())]

    def _event(self, kind: EventKind, caller: Caller, text: str, revision: int | None = None) -> list[Write]:
        """Return the writes for an event."""
        return event_writes(
            Event(
                number=self._next_event, time=self._clock(), kind=kind, by=caller.name, origin=caller.origin, text=text,
                revision=revision,
            )
        )  # fmt: skip


def _parse(text: bytes, whole: bytes, path: Path) -> Config:
    """Parse a file without its header; errors have the lines of the whole file."""
    try:
        return parse_known(text, path)
    except ConfigError:
        return parse_known(whole, path)


def _summary(revision: Revision, lines: Collection[str]) -> str:
    what = revision.message or (f"as revision {revision.rollback_of}" if revision.rollback_of else "")
    listed = "; ".join([*lines][:5]) + (f" and {len(lines) - 5} more" if len(lines) > 5 else "")
    return ": ".join(filter(None, (what, listed or "the same configuration")))
