"""Replays through several muxes with the same tables, behind a router that spreads flows over them.

The router hashes the five fields into buckets, as a Linux next-hop group of type `resilient` does: when a mux is lost,
only its buckets go to the others.
"""

import dataclasses
from collections.abc import Callable, Iterable
from functools import reduce

import numpy as np

from lbmux.addresses import Address
from lbmux.backends.overrides import Overrides, with_overrides
from lbmux.backends.removal import BY_FILE, with_removals
from lbmux.config.models import Config
from lbmux.errors import LbmuxError
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.frames.pcap import PcapWriter
from lbmux.linux.next_hops import NextHop
from lbmux.tables.row_identities import identity
from lbmux.tools.replay.captured_flows import BROKEN, LOST, CapturedFlows
from lbmux.tools.replay.flow_outcomes import FlowOutcomes
from lbmux.tools.replay.looped_capture import LoopedCapture
from lbmux.tools.replay.replay import NOTHING, ChangeResult, Count, FlowCounts, ReplayMux, Result, replay
from lbmux.tools.replay.replay_changes import Change, Loss, Reload, Timeline, UnusableChangeError, name_of

BUCKET_BITS = 12
HASH_BITS = 32


class ReplayPool:
    """Muxes, the flows that they forward, and what changes do to these flows."""

    def __init__(self, config: Config, local: Iterable[Address], hop: NextHop, muxes: int = 1) -> None:
        """The arguments before ``muxes`` are as for ReplayMux."""
        local = tuple(local)
        self._muxes = [ReplayMux(config, local, hop) for _ in range(muxes)]
        self._alive = list(range(muxes))
        self._router = np.arange(1 << BUCKET_BITS) % muxes
        self._config, self._overrides = config, Overrides()
        self._changes: list[Change] = []
        self.flows = CapturedFlows(self._muxes[0].worker)
        self.outcomes = FlowOutcomes(self.flows)
        self.services: list[str] = []
        """The name of each service number."""
        self._backend_numbers = np.full(self._muxes[0].worker.tables.sizes.backends + 1, -1, np.int64)
        self._update(is_change=False)

    def forward(self, frames: CapturedFrames) -> None:
        """Forward a batch: each frame by the mux that the router picks."""
        self.flows.add(frames)
        muxes = self._router[self.flows.hashes[: frames.count] >> (HASH_BITS - BUCKET_BITS)]
        for number, mux in enumerate(self._muxes):
            which = np.flatnonzero(muxes == number)
            if len(which) == frames.count:
                mux.forward(frames)
            elif len(which):
                picked = frames.pick(which)
                mux.forward(picked)
                frames.put_back(which, picked)
        self.outcomes.add(frames, self._backend_numbers[frames.target[: frames.count]])

    def change(self, change: Change, time_ns: int) -> None:
        """Put a change in force.  Raise UnusableChangeError if a configuration does not fit the tables."""
        self._changes.append(change)
        if isinstance(change, Loss):
            self._lose(change.mux)
        else:
            self._reload(change, time_ns)
        self._update(is_change=True)

    def _lose(self, mux: int) -> None:
        self._alive.remove(mux)
        buckets = np.flatnonzero(self._router == mux)
        self._router[buckets] = np.resize(self._alive, len(buckets))

    def _reload(self, change: Reload, time_ns: int) -> None:
        """Reload as a mux does: removed backends stay for the flows that they have."""
        overrides = with_removals(change.config, self._overrides, self._config, {}, time_ns / 1e9, BY_FILE)
        self._config, self._overrides = with_overrides(change.config, overrides), overrides
        try:
            for mux in self._muxes:
                mux.reload(self._config, time_ns)
        except LbmuxError as error:
            raise UnusableChangeError(change.path, change.at_ns, error) from error

    def _update(self, is_change: bool) -> None:
        """Number the services and backends that are in the tables now.  All muxes use the same rows."""
        control = self._muxes[0].control
        identities = {key: int(control.tables.backend_identities[row]) for key, row in control.rows.items()}
        self.outcomes.update(identities, self._overrides.removals, is_change)
        self._backend_numbers[:] = -1
        for key, row in control.rows.items():
            self._backend_numbers[row] = self.outcomes.number(identities[key])
        rows = {int(value): row for row, value in enumerate(control.tables.service_identities.tolist()) if value}
        for service in self._config.services:
            row = rows[identity(service.vip, service.protocol, service.port)]
            if service.name not in self.services:
                self.services.append(service.name)
            self.flows.service_numbers[row] = self.services.index(service.name)
            self.flows.idle_ns[row] = service.idle_s * 10**9

    def verdicts(self) -> dict[str, Count]:
        """Packets and bytes by verdict, of all muxes."""
        return _sums([mux.verdicts() for mux in self._muxes])

    def backends(self) -> dict[str, Count]:
        """What all muxes sent to each backend."""
        return _sums([mux.backends() for mux in self._muxes])

    def lookups(self) -> dict[str, int]:
        """Flow table look-ups by result, of all muxes."""
        counts = [mux.lookups() for mux in self._muxes]
        return {name: sum(each[name] for each in counts) for name in counts[0]}

    def shares(self) -> dict[str, Count]:
        """What each mux got, by its name."""
        return {name_of(number): sum(mux.verdicts().values(), NOTHING) for number, mux in enumerate(self._muxes)}

    def changes(self) -> tuple[ChangeResult, ...]:
        """Return the changes that came into force, with their effects."""
        pairs = zip(self._changes, self.outcomes.effects(), strict=True)
        return tuple(ChangeResult(change.at_ns / 1e9, str(change), effect) for change, effect in pairs)

    def flow_counts(self) -> FlowCounts:
        seen = self.flows.records["seen"]
        return FlowCounts(len(seen), *(int(np.count_nonzero(seen & bit)) for bit in (BROKEN, LOST)))


class _Scheduled:
    """A pool that changes during the replay, as a timeline says."""

    def __init__(self, pool: ReplayPool, timeline: Timeline) -> None:
        self._pool, self._timeline = pool, timeline
        self.verdicts, self.backends, self.lookups = pool.verdicts, pool.backends, pool.lookups

    def forward(self, frames: CapturedFrames) -> None:
        if not frames.count:
            self._pool.forward(frames)
            return
        for changes, part in self._timeline.parts(frames):
            for change in changes:
                self._pool.change(change, self._timeline.start_ns + change.at_ns)
            self._pool.forward(part)


def replay_pool(
    looped: LoopedCapture, pool: ReplayPool, timeline: Timeline, writer: PcapWriter | None = None,
    tell: Callable[[int], None] | None = None,
) -> Result:  # fmt: skip
    """Run a capture through a pool; the arguments after ``timeline`` are as for replay.replay."""
    result = replay(looped, _Scheduled(pool, timeline), writer, tell)
    return dataclasses.replace(result, muxes=pool.shares(), changes=pool.changes(), flows=pool.flow_counts())


def _sums(counts: list[dict[str, Count]]) -> dict[str, Count]:
    names = reduce(lambda names, each: names | dict.fromkeys(each), counts, dict[str, None]())
    return {name: sum((each.get(name, NOTHING) for each in counts), NOTHING) for name in names}
