"""The states of the slots in force at a mux: where its Maglev tables lie, which slots have changed, and since when.

``changed_to`` and ``former_of`` plan and may run in a thread; the other methods write tables.  lbmux.tables.slot_pairs
has the rule for one table, docs/flow-state.md explains it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lbmux.datapath.tables import FORMER_TABLE, NO_BACKEND_ROW, NO_BASE, NONE, TICK_SHIFT
from lbmux.tables import slot_pairs
from lbmux.tables.slot_allocation import Range, runs
from lbmux.tables.slot_pairs import Pairs
from lbmux.targets.regions import Tables

Slots = NDArray[np.uint32]
"""Numbers of slots in a service's table."""
NO_TABLE: Range = (0, 0)
COMING_UP_TICKS = 10_000_000_000 >> TICK_SHIFT
"""The time after its first backend in which the other backends of a service come up, in ticks."""


@dataclass
class ComingUp:
    """A service whose backends come up for the first time."""

    first: int | None = None
    """When it got its first table, in ticks."""
    rows: set[int] = field(default_factory=set)
    """The rows of the backends that have been in its table."""

    def note(self, pairs: Pairs) -> None:
        """Note the backends of a table that has been in force."""
        self.rows |= _backends(pairs["backend"])

    def is_joined(self, before: Pairs, table: NDArray[np.uint16]) -> bool:
        """Return whether a new table has only gained backends, each of which comes up for the first time."""
        old, new = _backends(before["backend"]), _backends(table)
        return old < new and not (new - old) & self.rows

    def is_over(self, now: int) -> bool:
        return self.first is not None and (now - self.first) & 0xFFFFFFFF > COMING_UP_TICKS


def _backends(table: NDArray[np.uint16]) -> set[int]:
    return set(np.unique(table).tolist())


class SlotStates:
    """The slots of all services, each of which is identified by the number of its row."""

    def __init__(self, tables: Tables, clock: Callable[[], int]) -> None:
        """``clock``: the clock by which packets are forwarded, in ticks."""
        self.tables, self._clock = tables, clock
        self.places: dict[int, Range] = {}
        """The place of each service's table; NO_TABLE if no backend takes new flows."""
        self.former: dict[int, Range] = {}
        """The place of the former table, which has the bases of slots."""
        self._marks: dict[int, list[tuple[int, Slots]]] = {}
        """The times at which slots started to change, in ticks, with the slots, oldest first. A service without
        such slots is missing."""
        self._runs_of: tuple[dict[int, Range], list[Range]] = {}, []
        """The ranges of slots in use, and the places that they are made from."""
        self._started = False
        self._coming_up: dict[int, ComingUp] = {}
        """The services whose backends come up for the first time."""
        self._adopt()

    def _adopt(self) -> None:
        """Take over tables that were in force before; no slot has begun to change later than now."""
        services = self.tables.services[self.tables.active]
        for index in np.flatnonzero(services["size"] | services["former_size"]).tolist():
            service = services[index]
            if service["former_size"] and service["former"] != NONE:
                self.former[index] = (int(service["former"]), int(service["former_size"]))
            if service["size"] or index in self.former:
                self.places[index] = (int(service["slots"]), int(service["size"]))
                slots = slot_pairs.changing(self.pairs(index))
                self._set_marks(index, [(self._clock(), slots)] if len(slots) or index in self.former else [])

    def pairs(self, index: int) -> Pairs:
        """Return a view of a service's slots in force."""
        at, size = self.places.get(index, NO_TABLE)
        return self.tables.slots[at : at + size]

    def changed_to(self, index: int, table: NDArray[np.uint16], removed: NDArray[np.bool_]) -> tuple[Pairs, Slots]:
        """Return (the slots of a service's new table, those that begin to change with it).

        ``removed``: for each row of backends, whether its backend goes away.
        """
        before, all_slots = self.pairs(index), np.arange(len(table), dtype=np.uint32)
        coming_up = self._coming_up.get(index)
        if coming_up is not None:
            coming_up.note(before)  # here, not in a commit, which would keep packets waiting
        if len(before) == len(table):
            pairs = slot_pairs.changed(before, table, removed)
            if coming_up is not None and coming_up.is_joined(before, table):
                slot_pairs.keep_steady(before, pairs)
            return pairs, slot_pairs.began(before, pairs)
        if len(before) or index in self.former:
            return slot_pairs.resized(table), all_slots
        if index in self.places and coming_up is None:
            # the service had no table, or there was no room for the former one
            return slot_pairs.with_exceptions(table), all_slots[:0]
        return slot_pairs.steady(table), all_slots[:0]

    def former_of(self, index: int, place: Range) -> Range | None:
        """Return the table that has the bases once a service's table lies at ``place``.

        That is the table before the first change of size, or before there was none, until a table has settled.
        """
        before = self.places.get(index, NO_TABLE)
        return self.former.get(index) or (before if before[1] and before[1] != place[1] else None)

    def commit(
        self,
        places: dict[int, Range],
        former: dict[int, Range],
        began: Mapping[int, Slots],
        changed: Iterable[int],
    ) -> None:
        """Put planned tables in force; tables of services that are not ``changed`` stay. A table of another size has
        none of its predecessor's marks.  A service that loses its table needs the former one for as long as a flow may
        be without an entry.
        """
        now = self._clock()
        for index in changed:
            place = places.get(index)
            if place is None:
                self._marks.pop(index, None)
                self._coming_up.pop(index, None)
                continue
            if self._started and index not in self.places:
                self._coming_up[index] = ComingUp()
            if index in self._coming_up:
                self._come_up(self._coming_up[index], index, place, now)
            same_size = self.places.get(index, NO_TABLE)[1] == place[1]
            marks = self._marks.pop(index, []) if same_size else []
            slots = began.get(index, np.empty(0, np.uint32))
            is_new = len(slots) or not (place[1] or same_size)
            self._set_marks(index, [*marks, (now, slots)] if is_new else marks)
        self.places, self.former = places, former

    def _set_marks(self, index: int, marks: list[tuple[int, Slots]]) -> None:
        if marks:
            self._marks[index] = marks
        else:
            self._marks.pop(index, None)

    def _come_up(self, coming_up: ComingUp, index: int, place: Range, now: int) -> None:
        """Note when a service gets its first table, and the backends of one that it loses."""
        if not place[1]:
            coming_up.note(self.pairs(index))
        elif coming_up.first is None:
            coming_up.first = now

    def settle(self, now: int) -> list[Range]:
        """Give exceptions to slots that have been changing for their service's idle time.  ``now`` is in ticks.

        Every flow without an entry began before its slot changed, and would have been idle for too long by now.  Return
        the ranges of former tables that are no longer needed.
        """
        freed = []
        self._coming_up = {index: one for index, one in self._coming_up.items() if not one.is_over(now)}
        for index, marks in list(self._marks.items()):
            limit = int(self.tables.services[self.tables.active, index]["idle_trusted"])
            over = [mark for mark in marks if (now - mark[0]) & 0xFFFFFFFF > limit]
            if over:
                marks = marks[len(over) :]
                self._set_marks(index, marks)
                later = np.concatenate([np.empty(0, np.uint32), *(slots for _, slots in marks)])
                due = np.setdiff1d(np.concatenate([slots for _, slots in over]), later)
                slot_pairs.settle(self.pairs(index), due)
                freed += self._drop_former(index)
        return freed

    def _drop_former(self, index: int) -> list[Range]:
        pairs = self.pairs(index)
        if index not in self.former or np.any(pairs["base"] == FORMER_TABLE):
            return []
        self.tables.services[self.tables.active, index]["former"] = NONE
        return [self.former.pop(index)]

    def end_exceptions(self, deviates: NDArray[np.bool_]) -> None:
        """Make slots steady that have exceptions without an entry.

        ``deviates``: for each slot of the region, whether an entry names another backend (tables.flow_sweep).
        """
        for at, size in self._runs():
            slot_pairs.end_exceptions(self.tables.slots[at : at + size], deviates[at : at + size])

    def start(self, has_flows: bool = False) -> list[Range]:
        """Make every slot steady before the first packet, unless the tables are adopted and ``has_flows``.

        No flow has begun yet that a change could have moved. For a while the slots of a service stay steady when its
        backends come up for the first time: the services of a starting mux, and new ones. Muxes see backends come up in
        different orders, so their slots would have different bases. Return the ranges of former tables that are no
        longer needed.
        """
        self._started, freed = True, list[Range]()
        if has_flows:
            return freed
        now = self._clock()
        self._coming_up = {index: ComingUp(now if size else None) for index, (_, size) in self.places.items()}
        for at, size in self._runs():
            pairs = self.tables.slots[at : at + size]
            pairs["base"] = pairs["backend"]
        self._marks = {}
        for index in list(self.former):
            freed += self._drop_former(index)
        return freed

    def forget_row(self, index: int, row: int) -> None:
        """Remove a backend's row as a base from a service's slots, before another backend gets the row."""
        slot_pairs.forget_row(self.pairs(index), row)
        at, size = self.former.get(index, NO_TABLE)
        former = self.tables.slots[at : at + size]
        former["backend"][former["backend"] == row] = NO_BACKEND_ROW
        slot_pairs.forget_row(former, row)

    def is_marked(self) -> bool:
        """Return whether any slot is not steady."""
        return any(bool(slot_pairs.is_marked(self.tables.slots[at : at + size]).any()) for at, size in self._runs())

    def has_exceptions(self) -> bool:
        """Return whether any slot has exceptions."""
        return any(bool((self.tables.slots["base"][at : at + size] == NO_BASE).any()) for at, size in self._runs())

    def _runs(self) -> list[Range]:
        """Return the slots of all services as few ranges: tables beside each other are one."""
        if self._runs_of[0] is not self.places:
            self._runs_of = self.places, runs(self.places.values())
        return self._runs_of[1]
