"""Keeps an agent's flow table in step with its host's sockets: every live connection keeps its entry.

A pass reads all sockets. It refreshes the entry of each connection, however long the connection has been idle, and
creates a missing entry: the tables may be new, or a flood may have displaced it. A socket does not name the VIP of its
connection: if several VIPs map to its address and port, it gets no entry until the client's next packet. A pass
remembers the VIP of each connection, so that a later pass can restore a lost entry.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import from_pair, port_from_wire, to_pair
from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.context import context_at, endpoint_limit, endpoints, settings
from lbmux.datapath.flow_lookup import (
    delete,
    flow_hash,
    is_of,
    lookup,
    set_state,
    state_of,
    target_of,
    trusted_in,
)
from lbmux.datapath.memory import at_address, int64, step, u16, u32
from lbmux.datapath.tables import FLOW, GONE, TRUSTED, UNTRUSTED, endpoint_row, entry_row, flow_row, settings_row
from lbmux.linux.sock_diag import ESTABLISHED, LISTEN, SOCKETS, SYN_SENT
from lbmux.tables.agent_tables import AgentTables, Source
from lbmux.tables.migration import enter_as, word_row
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks

AMBIGUOUS = 0xFFFF
"""The target of a flow whose socket does not determine the VIP."""
KEY = np.dtype([("high", "u8"), ("low", "u8"), ("ports", "u4"), ("owner", "u2")])
LOCAL_END = np.dtype([("high", "u8"), ("low", "u8"), ("port", "u2"), ("protocol", "u1")])
AT_ONCE = 512
"""Number of flows that are looked up between two batches of packets."""


class SocketFlows(NamedTuple):
    """The flows of sockets, as FLOW rows whose target may be AMBIGUOUS, and the low halves of their DIPs, as loaded."""

    flows: NDArray[Any]
    dips: NDArray[np.uint64]


@dataclass
class SocketSync:
    """Writes the flow table through ``worker``, at any time: all CPUs share the table."""

    agent: AgentTables
    worker: Worker

    def __post_init__(self) -> None:
        self._keys, self._targets = np.empty(0, f"V{KEY.itemsize}"), np.empty(0, np.uint16)
        self._listens: frozenset[tuple[int, int]] = frozenset()

    def warm_up(self) -> None:
        """Compile what passes need, or load it from the cache: probes would wait for that later."""
        none = SocketFlows(np.zeros(1, FLOW)[:0], np.zeros(1, np.uint64)[:0])
        self.refresh(none)
        self._forget(none)

    def note_listeners(self, sockets: NDArray[Any]) -> None:
        listening = sockets[sockets["state"] == LISTEN]
        self._listens = frozenset(zip(listening["protocol"].tolist(), listening["local_port"].tolist(), strict=True))

    def find(self, sockets: NDArray[Any]) -> SocketFlows:
        """Return the flows of the sockets (as from Connections.all) that belong to a backend."""
        sockets = sockets[(sockets["state"] != LISTEN) & (sockets["state"] != SYN_SENT)]
        locals_, which = np.unique(_local_ends(sockets), return_inverse=True)
        places = [self._place(end) for end in locals_.view(LOCAL_END).tolist()]
        owners, targets = (np.array([place[at] for place in places], np.int64)[which] for at in (0, 1))
        mine = owners >= 0
        sockets, flows = sockets[mine], np.zeros(int(mine.sum()), FLOW)
        flows["high"], flows["low"] = sockets["remote"][:, 0], sockets["remote"][:, 1]
        flows["ports"] = sockets["remote_port"].astype(np.uint32) | sockets["local_port"].astype(np.uint32) << 16
        flows["owner"], flows["target"] = owners[mine], targets[mine]
        flows["state"] = np.where(sockets["state"] == ESTABLISHED, TRUSTED, UNTRUSTED)
        self._recall(flows)
        return SocketFlows(flows, np.ascontiguousarray(sockets["local"][:, 1]))

    def _place(self, end: tuple[int, int, int, int]) -> tuple[int, int]:
        """Return (owner, target) of a local end; owner -1 if it does not belong to a backend."""
        high, low, port, protocol = end
        dip, number = from_pair(high, low), port_from_wire(port)
        sources = self.agent.sources
        owned = sources.get(Source(protocol, dip, number)) or sources.get(Source(protocol, dip, 0))
        if owned is None:
            return -1, AMBIGUOUS
        if Source(protocol, dip, number) not in sources and (protocol, port) not in self._listens:
            return owned.owner, self.agent.direct  # the host opened it, and the service has any port
        return owned.owner, owned.endpoints[0] if len(owned.endpoints) == 1 else AMBIGUOUS

    def _recall(self, flows: NDArray[Any]) -> None:
        """Give flows the targets of the last pass. A connection from a mux is its probe of a DIP."""
        muxes = np.array([to_pair(mux) for mux in self.agent.mux_addresses], np.uint64).reshape(-1, 2)
        for high, low in muxes:
            flows["target"][(flows["high"] == high) & (flows["low"] == low)] = self.agent.direct
        if len(self._keys) and len(flows):
            keys = _keys(flows)
            places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            same = self._keys[places] == keys
            flows["target"][same] = self._targets[places[same]]

    def refresh(self, socket_flows: SocketFlows, first: int = 0, most: int | None = None) -> int:
        """Refresh the entries of ``most`` flows from ``first`` on, and make missing ones. Return how many were made.

        The flows get the targets of their entries.
        """
        part = slice(first, len(socket_flows.flows) if most is None else first + most)
        flows, dips = socket_flows.flows[part], socket_flows.dips[part]
        return int(
            _refresh_all(
                self.worker.address, address_of(flows), address_of(dips), len(flows), self.worker.number, now_ticks()
            )
        )

    def remember(self, socket_flows: SocketFlows) -> None:
        """Remember the targets of a whole pass for the next one."""
        with_target = socket_flows.flows[socket_flows.flows["target"] != AMBIGUOUS]
        keys = _keys(with_target)
        order = np.argsort(keys)
        self._keys, self._targets = keys[order], with_target["target"][order]

    def adopt(self, socket: NDArray[Any]) -> int | None:
        """Enter the flow of one socket. Return its target, or None if it is not known."""
        socket_flows = self.find(socket)
        if not len(socket_flows.flows):
            return None
        self.refresh(socket_flows)
        target = int(socket_flows.flows["target"][0])
        return None if target == AMBIGUOUS else target

    def forget(self, socket: NDArray[Any]) -> None:
        """Delete the entries of one socket's flow, which the host does not have any more."""
        self._forget(self.find(socket))

    def _forget(self, socket_flows: SocketFlows) -> None:
        _forget_all(
            self.worker.address, address_of(socket_flows.flows), address_of(socket_flows.dips), len(socket_flows.flows)
        )


def one_socket(
    local: tuple[int, int], local_port: int, remote: tuple[int, int], remote_port: int, protocol: int
) -> NDArray[Any]:
    """Return an established connection in the format of Connections.all; addresses are pairs, ports as loaded."""
    return np.array([(local, remote, local_port, remote_port, protocol, ESTABLISHED)], SOCKETS)


def _local_ends(sockets: NDArray[Any]) -> NDArray[Any]:
    ends = np.zeros(len(sockets), LOCAL_END)
    ends["high"], ends["low"] = sockets["local"][:, 0], sockets["local"][:, 1]
    ends["port"], ends["protocol"] = sockets["local_port"], sockets["protocol"]
    return ends.view(f"V{LOCAL_END.itemsize}")


def _keys(flows: NDArray[Any]) -> NDArray[Any]:
    keys = np.zeros(len(flows), KEY)
    for name in KEY.names or ():
        keys[name] = flows[name]
    return keys.view(f"V{KEY.itemsize}")


@step
def _is_valid(context, word):  # type: ignore[no-untyped-def]
    """Return whether an entry's endpoint is in use, however long the flow has been idle."""
    target = target_of(word)
    return target < endpoint_limit(context) and is_of(word, endpoint_row(endpoints(context), target))


@step
def _refresh(setting, bucket, way, word, flow, now):  # type: ignore[no-untyped-def]
    """Mark an entry as used, and as trusted if the connection is. The flow gets the entry's target."""
    entry_row(bucket, way).seen = u32(now)
    flow.target = u16(target_of(word))
    is_untrusted = state_of(word) == UNTRUSTED and flow.state == TRUSTED
    if is_untrusted and trusted_in(bucket) < int64(setting.trusted_ways):
        set_state(bucket, way, word, TRUSTED)


@compiled
def _refresh_all(context_address, flows, dips, count, worker, now):  # type: ignore[no-untyped-def]
    context, entered = context_at(context_address), 0
    setting = settings_row(settings(context), 0)
    for index in range(count):
        flow, dip = flow_row(at_address(flows), index), word_row(at_address(dips), index).value
        hashed = flow_hash(setting, flow.high, flow.low, flow.ports, dip)
        bucket, way, word = lookup(context, hashed, flow.high, flow.low, flow.ports, int64(flow.owner))
        if way >= 0 and _is_valid(context, word):
            _refresh(setting, bucket, way, word, flow, now)
        elif int64(flow.target) < endpoint_limit(context):
            row = endpoint_row(endpoints(context), int64(flow.target))
            if row.state != GONE:
                if way >= 0:
                    delete(bucket, way, word)
                flow.generation, flow.seen = row.generation, u32(now)
                entered += enter_as(context, setting, worker, flow, dip, row, now)
    return entered


@compiled
def _forget_all(context_address, flows, dips, count):  # type: ignore[no-untyped-def]
    context = context_at(context_address)
    setting = settings_row(settings(context), 0)
    for index in range(count):
        flow, dip = flow_row(at_address(flows), index), word_row(at_address(dips), index).value
        hashed = flow_hash(setting, flow.high, flow.low, flow.ports, dip)
        bucket, way, word = lookup(context, hashed, flow.high, flow.low, flow.ports, int64(flow.owner))
        if way >= 0:
            delete(bucket, way, word)
