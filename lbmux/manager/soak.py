"""Watches the canary of a revision. After the soak the primary continues the rollout, or rolls the revision back."""

import asyncio
import time
from collections.abc import Callable

from lbmux.manager.canary import Sample, trouble
from lbmux.manager.documents import Canary, NodeReport
from lbmux.manager.impact import Survey

CHECK_S = 0.5
IN_FORCE_S = 30.0
"""Time for the canary to put its revision in force, in seconds."""


async def soak(canary: Canary, survey: Survey, report: Callable[[], NodeReport | None]) -> str:
    """Return why a canary's revision must be rolled back; empty: the rollout may continue.

    ``report`` returns the mux's last report.
    """
    if reason := await _until_in_force(canary, report):
        return reason
    first = await survey.samples()
    end = time.monotonic() + canary.soak_s
    while True:
        await asyncio.sleep(min(CHECK_S, max(0.0, end - time.monotonic())))
        is_over, now = time.monotonic() >= end, await survey.samples()
        if reason := _state(canary, report()):
            return reason
        if canary.mux not in now:
            return f"{canary.mux} does not answer"
        added = {name: one.since(first.get(name, one)) for name, one in now.items()}
        mine = added.pop(canary.mux, Sample())
        if reason := trouble(mine, added.values(), is_over=is_over):
            return reason
        if is_over:
            return ""


async def _until_in_force(canary: Canary, report: Callable[[], NodeReport | None]) -> str:
    deadline = time.monotonic() + IN_FORCE_S
    while True:
        node = report()
        if reason := _state(canary, node):
            return reason
        if node is not None and node.in_force >= canary.revision:
            return ""
        if time.monotonic() >= deadline:
            return f"{canary.mux} has not put it in force within {IN_FORCE_S:g} s"
        await asyncio.sleep(CHECK_S / 10)


def _state(canary: Canary, report: NodeReport | None) -> str:
    """Return the fault of the mux itself; empty: none."""
    if report is None or not report.connected:
        return f"{canary.mux} is not connected"
    if report.refused and report.revision >= canary.revision:
        return f"{canary.mux} refuses it: {report.refused}"
    return ""
