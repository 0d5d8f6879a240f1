"""One manager: it takes part in the elections, follows the desired state, and knows its nodes' reports."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lbmux import __version__
from lbmux.errors import LbmuxError, SetupError
from lbmux.manager.api_models import StatusAnswer
from lbmux.manager.documents import NodeReport
from lbmux.manager.guard_rails import MOST_MOVED
from lbmux.manager.health_relay import HealthRelay
from lbmux.manager.identity import Identity
from lbmux.manager.impact import NoNodes, Survey
from lbmux.manager.pool import Pool
from lbmux.manager.pool_health import BATCH_S
from lbmux.manager.pool_state import EPOCH, POOL_ID, PoolState, follow_state, load_state
from lbmux.manager.proposals import Caller, NotPrimaryError
from lbmux.manager.rollout_order import Progress, RolloutOrder, Version
from lbmux.manager.signal import Signal
from lbmux.manager.soak import soak
from lbmux.manager.store.election import ELECTION, Leadership, campaign, epoch_now, hold, resign
from lbmux.manager.store.store import CompactedError, Store, UnavailableError, Write
from lbmux.manager.stored_overrides import next_end

log = logging.getLogger(__name__)
RETRY_S, EXPIRY_S, RESIGN_S, ORDER_S = 0.5, 0.5, 1.0, 0.25
PAUSE = 10
"""The pause between two looks at the nodes' reports, as a multiple of the time that a look takes."""


@dataclass(frozen=True)
class Primary:
    """The current primary: its URL, and the epoch of its messages."""

    url: str = ""
    epoch: int | None = None


@dataclass
class Manager:
    """The parts that requests use; ``running`` keeps them up to date.  ``url`` is where others reach this manager."""

    store: Store
    identity: Identity
    url: str
    clock: Callable[[], float] = time.time
    survey: Survey | None = None
    """Asks the live nodes about a change."""
    most_moved: float = MOST_MOVED
    """The share of live connections that a change may move without force."""
    state: PoolState = field(default_factory=PoolState)
    primary: Primary = field(default_factory=Primary)
    reports: dict[str, NodeReport] = field(default_factory=dict)
    """The last report of each node that is connected here."""
    gone: dict[str, NodeReport] = field(default_factory=dict)
    """The last report of each node that was connected here."""
    elsewhere: dict[str, dict[str, NodeReport]] = field(default_factory=dict)
    """On the primary: the reports of nodes by the other manager to which they are connected."""
    health: HealthRelay = field(default_factory=HealthRelay)
    order: RolloutOrder = field(default_factory=RolloutOrder)
    primary_progress: Progress | None = None
    """How far the pool's nodes are, as the primary reports; None: it does not."""
    changed: Signal = field(default_factory=Signal)
    """Sent when the state or the primary changed."""
    reported: Signal = field(default_factory=Signal)
    """Sent when a report of a node that is connected here changed."""
    pool_id: str = ""
    stale_refusals: int = 0
    """Number of messages of this manager that nodes refused because of their epoch."""
    _pool: Pool | None = None
    _holding: "asyncio.Task[None] | None" = None

    @property
    def is_primary(self) -> bool:
        return self._pool is not None

    @property
    def pool(self) -> Pool:
        """The pool, which only the primary changes; raise NotPrimaryError on any other manager."""
        if self._pool is None:
            raise NotPrimaryError(self.primary.url)
        return self._pool

    @property
    def nodes(self) -> dict[str, NodeReport]:
        """The last report of each node, as far as this manager knows."""
        lines = dict(self.gone)
        for reports in (*self.elsewhere.values(), self.reports):
            lines.update((name, one) for name, one in reports.items() if one.connected or name not in lines)
        return lines

    @property
    def progress(self) -> Progress:
        """How far the connected nodes are: those of the pool, or without a primary those that are connected here.

        An edge counts as an agent and as a mux.
        """
        if self.primary_progress is not None and not self.is_primary:
            return self.primary_progress
        taken: dict[str, list[Version]] = {"agent": [], "mux": []}
        for one in self.nodes.values():
            for kind in ("agent", "mux") if one.role == "edge" else (one.role,):
                if one.connected:
                    taken[kind].append((one.revision, one.overrides))
        return Progress(min(taken["agent"], default=None), min(taken["mux"], default=None))

    def way_to(self, node: str) -> str:
        """Return the URL of another manager that may reach a node: the node's own, or the primary, which knows all."""
        if not self.is_primary:
            return self.primary.url if self.primary.url != self.url else ""
        report = self.nodes.get(node)
        return report.manager if report is not None and report.connected and report.manager != self.url else ""

    def status(self) -> StatusAnswer:
        return StatusAnswer(
            pool=self.pool_id, name=self.identity.subject.name, version=__version__, is_primary=self.is_primary,
            primary=self.primary.url, epoch=self.primary.epoch, revision=self.state.revision,
            overrides=self.state.stored.version, canary=self.state.canary,
        )  # fmt: skip

    def step_down(self, epoch: int) -> None:
        """Step down and read the state again, because a node has seen a primary of a higher epoch."""
        self.stale_refusals += 1
        if self._holding is not None and epoch > (self.primary.epoch or 0):
            self._holding.cancel()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the store and stand for election; a primary that stops gives up its lease at once."""
        await self._check_pool()
        self.state = await load_state(self.store)
        self.health.configure(self.state.wanted, self.state.base.wanted if self.state.base else None)
        works = (self._follow_state, self._follow_primary, self._stand, self._keep_order)
        tasks = [asyncio.create_task(self._keep_on(work)) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _check_pool(self) -> None:
        entry, own = await self.store.get(POOL_ID), self.identity.subject
        if entry is None:
            raise SetupError("store", "it has no pool", "run `lbmux manager init` once, on the first manager")
        self.pool_id = entry.value.decode()
        if own.pool != self.pool_id or own.role != "manager":
            what = f"{own.role} {own.name} of pool {own.pool}"
            hint = "join this pool with a token for a manager"
            raise SetupError(f"identity in {self.identity.directory}", f"it is of {what}, not {self.pool_id}", hint)

    async def _keep_on(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Restart the work when the store does not answer, or when it ends."""
        while True:
            try:
                await work()
            except UnavailableError as error:
                log.warning("%s", error)
                await asyncio.sleep(RETRY_S)
            except LbmuxError as error:
                log.error("%s", error)
                await asyncio.sleep(RETRY_S)

    async def _follow_state(self) -> None:
        async with aclosing(follow_state(self.store, self.state)) as states:
            async for state in states:
                before = self.state.wanted
                if self.state.base is not None and state.canary is None and state.revision == self.state.revision:
                    before = self.state.base.wanted  # no canary: send it to all nodes
                version = state.revision, state.stored.version
                self.order.change(before, state.wanted, version, time.monotonic())
                self.state = state
                self.health.configure(state.wanted, state.base.wanted if state.base else None)
                self.changed.send()

    async def _keep_order(self) -> None:
        """Release states that wait for nodes of the other kind, as these report."""
        while True:
            changed, reported, looked_at = self.changed.next, self.reported.next, time.monotonic()
            if self.order.advance(self.progress, looked_at):
                self.changed.send()
            pause_s = min(BATCH_S, PAUSE * (time.monotonic() - looked_at))
            if self.order.is_idle:
                await changed.wait()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(ORDER_S):
                    await reported.wait()
            await asyncio.sleep(pause_s)

    async def _follow_primary(self) -> None:
        seen = await self.store.read(ELECTION)
        await self._see_primary()
        with suppress(CompactedError):
            async with aclosing(self.store.watch(ELECTION, seen.revision)) as batches:
                async for _ in batches:
                    await self._see_primary()

    async def _see_primary(self) -> None:
        entry = await self.store.get(ELECTION)
        epoch = await epoch_now(self.store)
        primary = Primary(json.loads(entry.value)["url"], epoch) if entry and epoch is not None else Primary()
        if primary != self.primary:
            self.primary = primary
            self.changed.send()

    async def _stand(self) -> None:
        """Be elected, and be primary until the lease is lost."""
        leadership = await campaign(self.store, json.dumps({"url": self.url}).encode())
        try:
            await self._lead(leadership)
        finally:
            self._pool = None
            log.info("no longer primary (epoch %d)", leadership.epoch)
            self.changed.send()
            with suppress(LbmuxError, TimeoutError):
                async with asyncio.timeout(RESIGN_S):
                    await resign(self.store, leadership)

    async def _lead(self, leadership: Leadership) -> None:
        holding = self._holding = asyncio.create_task(hold(self.store, leadership))
        tasks = [holding]
        try:
            pool = Pool(self.store, leadership.guard, self.clock, self.survey, self.most_moved)
            await pool.load()
            text, write = f"primary of epoch {leadership.epoch}", Write(EPOCH, b"%d" % leadership.epoch)
            await pool.record("primary", Caller(self.identity.subject.name), text, write)
            self._pool = pool
            log.info("primary (epoch %d)", leadership.epoch)
            self.changed.send()
            works = self._expire(pool), self.health.lead(leadership.epoch), self._decide_canaries(pool)
            tasks += [asyncio.create_task(work) for work in works]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._holding = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _decide_canaries(self, pool: Pool) -> None:
        """Let each revision with a canary go on after its soak, or roll it back."""
        while True:
            changed, canary = self.changed.next, pool.state.canary
            if canary is None:
                await changed.wait()
                continue
            report = partial(self._report_of, canary.mux)
            watching = asyncio.create_task(soak(canary, self.survey or NoNodes(), report))
            try:
                while not watching.done() and pool.state.canary == canary:
                    await asyncio.wait((watching,), timeout=EXPIRY_S)
                if watching.done():
                    with suppress(UnavailableError):
                        await pool.end_canary(canary.revision, watching.result())
            finally:
                watching.cancel()

    def _report_of(self, node: str) -> NodeReport | None:
        return self.nodes.get(node)

    async def _expire(self, pool: Pool) -> None:
        """End overrides in time."""
        while True:
            end = next_end(pool.state.stored)
            if end is not None and end <= self.clock():
                with suppress(UnavailableError):
                    await pool.expire()
            await asyncio.sleep(EXPIRY_S)
