"""The data path for one packet at a time: the same steps on the same tables, called from Python."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lbmux.addresses import Address, from_pair, to_pair
from lbmux.datapath.tables import GONE, TICK_SHIFT
from lbmux.slowpath.candidates import host_keys
from lbmux.slowpath.flow_steps import (
    assign_flow,
    chosen_backend,
    entry_backend,
    expected_backend,
    forget_flow,
    slot_backends,
)
from lbmux.slowpath.slow_path_flow import Candidates, Flow
from lbmux.slowpath.tunnel_frames import TunnelFrames, key_of
from lbmux.targets.native import Worker

SEARCH_TICKS = int(1e9) >> TICK_SHIFT
"""One second: longer than the search for a flow takes."""


class TableForwarder(TunnelFrames):
    """A ``Forwarder`` on a worker's tables."""

    def __init__(self, worker: Worker, now: Callable[[], int]) -> None:
        """``now``: the data path's clock, in ticks."""
        super().__init__(worker)
        self._now = now

    def warm_up(self) -> None:
        """Compile the functions, or load them from the cache."""
        super().warm_up()
        flow = Flow(6, from_pair(0, 0xFFFF0000), 0, from_pair(0, 0xFFFF0000), 0)
        self.owner(flow)
        self.enter(flow)
        self.candidates(flow, 1)
        self.entry(flow)
        self.assign(flow, -1)
        self.forget(flow)

    def owner(self, flow: Flow) -> int | None:
        return self._ask(expected_backend, flow)

    def owners(self, flow: Flow) -> list[int]:
        if self.owner(flow) is None:
            return []
        entry = self.entry(flow)
        return [entry] if entry is not None else self.likely(flow)

    def enter(self, flow: Flow) -> int | None:
        """Like ``owner``, and the flow keeps the backend from now on."""
        return self._ask(chosen_backend, flow)

    def entry(self, flow: Flow) -> int | None:
        return self._ask(entry_backend, flow)

    def _ask(self, look_up: Callable[..., Any], flow: Flow) -> int | None:
        target = int(look_up(self._worker.address, *_arguments(flow), np.uint64(self._now())))
        return target if target >= 0 else None

    def likely(self, flow: Flow) -> list[int]:
        return self._likely(flow)[1]

    def _likely(self, flow: Flow) -> tuple[int, list[int]]:
        """Return the flow's service, or -1, and the backends of its slot: the current one and the base."""
        result = np.empty(3, np.int64)
        slot_backends(self._worker.address, *_arguments(flow), result)
        service, *slots = result.tolist()
        states = self._tables.backends["state"]
        return service, list(dict.fromkeys(row for row in slots if row >= 0 and states[row] != GONE))

    def candidates(self, flow: Flow, most: int) -> Candidates:
        """Return the candidates. For a second after a change the rest includes the likely ones, which may be new."""
        service, likely = self._likely(flow)
        rows, likely = self._tables.backends, likely[:most]
        chosen = (rows["service"] == service) & (rows["state"] != GONE)
        if not self._just_changed():
            chosen[likely] = False
        rest = np.flatnonzero(chosen)
        keys = host_keys(flow, rows["remote_high"][rest], rows["remote_low"][rest])
        order = np.argsort(keys, kind="stable")[: most - len(likely)]
        return Candidates(likely, rest[order].tolist(), keys[order].tolist())

    def _just_changed(self) -> bool:
        changed = int(self._tables.settings[0]["tables_changed"])
        return (self._now() - changed) & 0xFFFFFFFF < SEARCH_TICKS

    def rejects(self, flow: Flow) -> bool:
        """Return whether the flow's service rejects packets while it has no backend."""
        service = self._likely(flow)[0]
        return service >= 0 and bool(self._tables.services[self._tables.active, service]["rejects"])

    def at_host(self, backends: Sequence[int], host: Address) -> list[int]:
        (high, low), rows = to_pair(host), self._tables.backends[list(backends)]
        matches = (rows["remote_high"] == np.uint64(high)) & (rows["remote_low"] == np.uint64(low))
        return [backend for backend, is_there in zip(backends, matches.tolist(), strict=True) if is_there]

    def assign(self, flow: Flow, backend: int) -> None:
        assign_flow(self._worker.address, *_arguments(flow), np.uint64(self._now()), backend)

    def forget(self, flow: Flow) -> None:
        forget_flow(self._worker.address, *_arguments(flow))


def _arguments(flow: Flow) -> tuple[Any, ...]:
    """Return a flow as the arguments of the compiled look-ups."""
    key = key_of(flow.client, flow.vip, (flow.client_port, flow.vip_port))
    return (*key, flow.protocol, flow.client.version)
