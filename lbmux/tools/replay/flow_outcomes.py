"""The outcome of each flow in a replay: its backends, and the change that broke it.

A flow breaks if a later packet goes to another backend although the backend that it had is still in the mux's tables.
It is lost if its backend left the tables. Both count for the last change before the packet. A backend that a reload
removes stays in the tables and keeps its flows, as in a mux (lbmux.backends.removal).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of, compiled
from lbmux.config.models import BackendKey
from lbmux.datapath.memory import at_address, int64, layout, rows, step, u8, u64
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.tools.replay.captured_flows import BROKEN, LOST, CapturedFlows, flow_row

EFFECT = layout(("continued", "u8"), ("broken", "u8"), ("lost", "u8"), ("draining", "u8"))
MOVE = layout(("flow", "i8"), ("backend", "i8"))
"""A flow's first backend, or its next."""
FIRST_CAPACITY = 1 << 12
FORWARDED = int(Verdict.FORWARDED)
effect_row, move_row = rows(EFFECT), rows(MOVE)


@dataclass(frozen=True)
class Effect:
    """Numbers of flows. ``continued``: they began before a change and sent packets after it. ``draining``: those whose
    backend the change removed, and that stay with it."""

    continued: int
    broken: int
    lost: int
    draining: int


class FlowOutcomes:
    """The backends of each flow of ``flows``, and the effect of each change."""

    def __init__(self, flows: CapturedFlows) -> None:
        self.flows = flows
        self.names: list[BackendKey] = []
        """The name of each backend number."""
        self._numbers: dict[int, int] = {}
        self._gone = self._removing = np.zeros(0, np.int64)
        self._effects = np.zeros(1, EFFECT)
        self._moves, self._move_count = np.zeros(FIRST_CAPACITY, MOVE), 0

    def update(self, identities: Mapping[BackendKey, int], removing: Collection[BackendKey], is_change: bool) -> None:
        """Note the backends that are in the tables now, with their identities (lbmux.tables.row_identities)."""
        for key, identity in identities.items():
            if self._numbers.setdefault(identity, len(self.names)) == len(self.names):
                self.names.append(key)
        if is_change:
            self.flows.changes += 1
            self._effects = np.concatenate([self._effects, np.zeros(1, EFFECT)])
        more, change = (0, len(self.names) - len(self._gone)), self.flows.changes
        self._gone, self._removing = np.pad(self._gone, more), np.pad(self._removing, more)
        present = np.zeros(len(self.names), np.bool_)
        present[[self._numbers[identity] for identity in identities.values()]] = True
        self._gone = np.where(present, 0, np.where(self._gone > 0, self._gone, change))
        leaving = np.zeros(len(self.names), np.bool_)
        leaving[[self._numbers[identities[key]] for key in removing if key in identities]] = True
        self._removing = np.where(leaving, np.where(self._removing > 0, self._removing, change), 0)

    def number(self, identity: int) -> int:
        """Return the number of a backend that ``update`` was given."""
        return self._numbers[identity]

    def add(self, frames: CapturedFrames, backends: NDArray[np.int64]) -> None:
        """Note where a batch went: the backend number of each frame, valid where it was forwarded."""
        while self._move_count + frames.count > len(self._moves):
            self._moves = np.concatenate([self._moves, np.zeros(len(self._moves), MOVE)])
        flows = self.flows
        self._move_count = _observe(
            address_of(flows.records), flows.numbers, frames.verdict, backends, frames.count, self._gone,
            self._removing, flows.changes, address_of(self._effects), address_of(self._moves), self._move_count,
        )  # fmt: skip

    def effects(self) -> list[Effect]:
        """Return the effect of each change, in their order."""
        return [Effect(*map(int, row)) for row in self._effects[1:].tolist()]

    def backends(self) -> list[list[int]]:
        """Return the backend numbers of each flow, in the order in which it had them."""
        results: list[list[int]] = [[] for _ in range(len(self.flows.records))]
        moves = self._moves[: self._move_count]
        for flow, backend in zip(moves["flow"].tolist(), moves["backend"].tolist(), strict=True):
            results[flow].append(backend)
        return results


@step
def _leave(flow, held, target, gone, effect, left):  # type: ignore[no-untyped-def]
    """Count a flow that left its backend. ``left``: the effect of the change that took the backend away."""
    if gone > 0:
        left.lost += u64(1)
        flow.seen = u8(flow.seen | u8(LOST))
        flow.backend = target
    elif target >= 0:
        effect.broken += u64(1)
        flow.seen = u8(flow.seen | u8(BROKEN))
        flow.backend = target


@compiled
def _observe(  # type: ignore[no-untyped-def]
    flows, numbers, verdicts, backends, count, gone, removing, changes, effects, moves, moved,
):  # fmt: skip
    """Compare each frame's backend with its flow's. Return the number of moves."""
    for index in range(count):
        if numbers[index] < 0:
            continue
        flow = flow_row(at_address(flows), int64(numbers[index]))
        target, held = int64(-1), int64(flow.backend)
        if verdicts[index] == FORWARDED:
            target = backends[index]
        for change in range(int64(flow.changes), changes):
            effect_row(at_address(effects), change + 1).continued += u64(1)
        if held < 0:
            flow.backend = target
        elif target != held:
            left = effect_row(at_address(effects), gone[held])
            _leave(flow, held, target, gone[held], effect_row(at_address(effects), changes), left)
        elif removing[held] > int64(flow.changes):
            effect_row(at_address(effects), removing[held]).draining += u64(1)
        flow.changes = changes
        if target >= 0 and target != held:
            move = move_row(at_address(moves), moved)
            move.flow, move.backend = numbers[index], target
            moved += 1
    return moved
