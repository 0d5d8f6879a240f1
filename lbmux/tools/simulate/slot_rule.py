"""The rule for flow entries, compiled: which backend a packet gets where only changed slots are looked up.

A slot is a pair (current, base) in one of three states:

- steady, base == current: no look-up and no entry; all its flows are at ``current``.
- changing, base is the backend before the change: flows are looked up.  Without an entry TCP in mid-connection goes to
  base, a SYN to base during the grace after the last change and then to ``current``, UDP to base until it would have
  been idle and then to ``current``.  Each gets an entry.
- exceptions, base == NONE: flows are looked up.  Without an entry they go to ``current`` and get none.

A change makes a steady slot changing, and one with exceptions too.  A changing slot keeps its base through all
further changes; if ``current`` becomes its base again, it has exceptions.  One idle time after it became changing, a
sweep gives it exceptions; a slot without any is steady.  The other policies track all flows, or send packets without an
entry to the newest of the tables before.

Records are of one mux; backends are numbers.
"""

import numpy as np

from lbmux.datapath.memory import step

NONE = -1
TCP, UDP = 0, 1
SYN, MID, FIN = 0, 1, 2
EARLIER = 8
"""Tables that a mux remembers, for policies that use them."""

SETTINGS = np.dtype(
    [
        ("tracks_all", "u1"), ("tracks_udp", "u1"), ("newest", "u1"), ("history", "i4"), ("second_chance", "u1"),
        ("exceptions", "u1"), ("udp_at_once", "u1"), ("settle_s", "f8"), ("udp_settle_s", "f8"), ("grace_s", "f8"),
        ("grace_open", "u1"), ("idle_tcp_s", "f8"), ("idle_udp_s", "f8"), ("idle_closing_s", "f8"),
    ],
    align=True,
)  # fmt: skip
"""A policy as numbers (flow_policies.Policy says what they mean)."""
SLOT = np.dtype([("current", "i4"), ("base", "i4"), ("marked", "u1"), ("marked_at", "f8")], align=True)
ENTRY = np.dtype([("target", "i4"), ("kind", "u1"), ("closing", "u1"), ("seen", "f8")], align=True)
"""The entry of one flow; without an entry the target is NONE."""
SETTLED, DEVIATING = 2, 3
"""Marks during a sweep: settled without an entry that deviates, and with one."""


@step
def change_slot(setting, slot, after, now):  # type: ignore[no-untyped-def]
    """Give a slot the backend of a new table."""
    if slot.current == after:
        return
    if slot.marked == 0 or slot.base == NONE:
        slot.base, slot.marked, slot.marked_at = slot.current, 1, now
    elif slot.base == after and setting.exceptions:
        slot.base = NONE
    slot.current = after


@step
def tracks(setting, slot, kind):  # type: ignore[no-untyped-def]
    """Return whether flows of the slot are looked up."""
    return setting.tracks_all != 0 or slot.marked != 0 or (kind == UDP and setting.tracks_udp != 0)


@step
def enters(setting, slot, kind):  # type: ignore[no-untyped-def]
    """Return whether a tracked flow without an entry gets one."""
    return slot.base != NONE or setting.tracks_all != 0 or (kind == UDP and setting.tracks_udp != 0)


@step
def is_idle(setting, entry, now):  # type: ignore[no-untyped-def]
    limit_s = setting.idle_tcp_s if entry.kind == TCP else setting.idle_udp_s
    if entry.closing:
        limit_s = setting.idle_closing_s
    return now - entry.seen > limit_s


@step
def find(setting, entry, what, alive, now):  # type: ignore[no-untyped-def]
    """Return the backend of a flow's entry, or NONE; an entry that no longer counts is removed."""
    if entry.target == NONE:
        return NONE
    if is_idle(setting, entry, now) or not alive[entry.target] or (what == SYN and entry.closing):
        entry.target = NONE
    return entry.target


@step
def guess(setting, slot, newest, kind, what, alive, is_open, changed, now):  # type: ignore[no-untyped-def]
    """Return the backend of a packet without an entry.

    ``newest``: the slot's backend in the table before, or NONE.  ``changed``: the time of the service's last change.
    """
    age = now - changed
    if setting.tracks_all:
        before = newest if age <= setting.idle_tcp_s else NONE
        return before if kind == TCP and what != SYN and before != NONE and alive[before] else slot.current
    before = slot.base
    if slot.marked == 0 or before == NONE:
        return slot.current
    if kind == TCP and what != SYN and setting.newest:
        before = newest if newest != NONE else slot.base
    if not alive[before]:
        return slot.current
    if kind == UDP:
        return before if not setting.udp_at_once and age <= setting.udp_settle_s else slot.current
    if what != SYN:
        return before
    return before if age <= setting.grace_s and (is_open[before] or not setting.grace_open) else slot.current


@step
def enter(entry, target, kind, now):  # type: ignore[no-untyped-def]
    entry.target, entry.kind, entry.closing, entry.seen = target, kind, 0, now


@step
def mark(slot, now):  # type: ignore[no-untyped-def]
    """Give a steady slot exceptions: one of its flows is elsewhere."""
    if slot.marked == 0:
        slot.marked, slot.marked_at, slot.base = 1, now, NONE


@step
def is_settling(setting, slot, now):  # type: ignore[no-untyped-def]
    """Return whether flows without an entry may still be at the slot's base."""
    return slot.base != NONE and slot.base != slot.current and now - slot.marked_at <= setting.settle_s


@step
def sweep(setting, slots, entries, flows, now):  # type: ignore[no-untyped-def]
    """Forget idle entries; settle slots, and unmark those in which nothing deviates any more.

    ``flows``: with the ``slot`` of the flow of each entry.
    """
    for index in range(len(entries)):
        if entries[index].target != NONE and is_idle(setting, entries[index], now):
            entries[index].target = NONE
    if setting.tracks_all:
        return
    for at in range(len(slots)):
        if slots[at].marked and not is_settling(setting, slots[at], now):
            slots[at].marked = SETTLED
    _find_deviating(slots, entries, flows)
    if not setting.tracks_udp:
        _drop_entries(setting, slots, entries, flows)
    for at in range(len(slots)):
        _settle(setting, slots[at])


@step
def _settle(setting, slot):  # type: ignore[no-untyped-def]
    """Turn a mark of this sweep into a steady slot, or into one with exceptions."""
    if slot.marked == SETTLED:
        slot.marked, slot.base = 0, slot.current
    elif slot.marked == DEVIATING:
        slot.marked = 1
        if setting.exceptions:
            slot.base = NONE


@step
def _find_deviating(slots, entries, flows):  # type: ignore[no-untyped-def]
    for index in range(len(entries)):
        at = flows[index].slot
        if entries[index].target != NONE and slots[at].marked == SETTLED and entries[index].target != slots[at].current:
            slots[at].marked = DEVIATING


@step
def _drop_entries(setting, slots, entries, flows):  # type: ignore[no-untyped-def]
    """Drop entries that say what their settled slot says."""
    for index in range(len(entries)):
        slot = slots[flows[index].slot]
        is_settled = slot.marked == SETTLED or (slot.marked == DEVIATING and setting.exceptions)
        if is_settled and entries[index].target == slot.current:
            entries[index].target = NONE
