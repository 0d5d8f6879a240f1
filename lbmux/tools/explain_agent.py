"""Explain what an agent did with a tunnelled frame or a reply, step by step.

The frame runs through the agent's own steps on a private, read-only copy of its tables (tools.table_copy).  The frame
as it arrived, the verdict, and the frame as it left come from the agent itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

import numpy as np

from lbmux.addresses import Address, from_pair, port_from_wire
from lbmux.api.channel import ControlTarget, target_name
from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.agent_flows import as_delivered, inbound_key, outbound_key
from lbmux.datapath.context import context_at, endpoint_limit, endpoints, settings
from lbmux.datapath.decapsulate import open_tunnel
from lbmux.datapath.flow_lookup import idle_for, is_alive, lookup, state_of, target_of
from lbmux.datapath.frame import frame, frame_end
from lbmux.datapath.match import match_service
from lbmux.datapath.memory import at_address, step, u64
from lbmux.datapath.parse import PARSED, destination_port, parse, parse_at, source_port
from lbmux.datapath.tables import DIP, NAT, VIP, WAYS, endpoint_row, entry_row, settings_row
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import SetupError
from lbmux.slowpath.tunnels import Ports
from lbmux.tables.live_flows import STATES, TICK_S
from lbmux.targets.native import Worker, context_row
from lbmux.targets.regions import now_ticks
from lbmux.tools.dry_run import ENTRY, bucket_offsets
from lbmux.tools.explanation import Step
from lbmux.tools.parse_reasons import PARSE_REASONS
from lbmux.tools.table_copy import LiveCopy
from lbmux.tracing.header_summary import HeaderSummary
from lbmux.tracing.inner_frames import flow_at_agent

TRIES = 3
"""How often to retry if the agent's configuration changes while it is read."""
NO_ENTRY = {
    Verdict.UNKNOWN_REPLY: "no entry, so user space checks the host's sockets: a live connection with one possible VIP"
    " gets its entry back; with several, the reply is held until the client sends a packet (reply_ambiguous)",
    Verdict.UNTRACKED: "no entry: a datagram without one leaves unchanged",
}
NO_TUNNEL = {
    Verdict.NOT_TUNNELLED: "not a tunnel packet, or not to an address of this host",
    Verdict.NOT_A_MUX: "its source is not a mux",
}
HINT = {
    Verdict.NOT_A_MUX: "if its source is a mux, add it to `muxes` in the configuration, then run `lbmux reload`",
    Verdict.NO_LOCAL_BACKEND: "the mux has a backend here that this host's file lacks: run `lbmux reload` on both",
    Verdict.CONGESTED: "a router marked it, and its sender does not use ECN: look for a full queue on the path",
    Verdict.UNTRACKED: "normal if the client addressed the DIP; if the reply was late, raise the service's idle.udp_s",
    Verdict.RESET_SUPPRESSED: "the mux tries other hosts with the next packet; if none has the flow, it sends a reset",
}


@dataclass(frozen=True)
class Passage:
    """A frame as it arrived, its verdict, and the frame as it left, if it did.  ``ports``: the tunnels' UDP ports."""

    came: bytes
    verdict: Verdict
    left: bytes | None
    is_reply: bool
    ports: Ports

    def client_and_vip(self) -> HeaderSummary:
        """Return the headers of the packet between client and VIP, as far as they are known."""
        return HeaderSummary.read(flow_at_agent(self.came, self.left, self.verdict, self.ports) or self.came)


def explain_at_agent(passage: Passage, place: ControlTarget) -> list[Step]:
    """Run the steps of the agent at ``place`` on the frame now. Raise ControlError or SetupError."""
    header_summary = passage.client_and_vip()
    for _ in range(TRIES):
        copy = LiveCopy.of(
            place, str(header_summary.source if passage.is_reply else header_summary.destination), "agent"
        )
        copy.read_configuration()
        run = _Run(passage, copy)
        if run.found("hashed") >= 0:
            for at in run.buckets():
                copy.read_bucket(at)
            run.dry_run()
        if copy.is_current():
            return list(run.steps())
    raise SetupError(str(target_name(place)), "its configuration kept changing while it was read", "try again later")


class _Run:
    """One frame on one private copy of the tables."""

    def __init__(self, passage: Passage, copy: LiveCopy) -> None:
        self._passage, self._snapshot, self._now = passage, copy.snapshot, now_ticks()
        self._context = Worker(copy.snapshot.tables)
        self._memory = np.frombuffer(passage.came, np.uint8).copy()
        self.dry_run()

    def dry_run(self) -> None:
        """Run the steps without side effects."""
        self._results = np.full(len(RESULTS), -1, np.int64)
        self._entry = np.full(len(ENTRY), -1, np.int64)
        dry_run = _dry_run_outbound if self._passage.is_reply else _dry_run_inbound
        address = address_of(self._memory)
        dry_run(self._context.address, address, len(self._memory), self._now, self._results, self._entry)

    def found(self, name: str) -> int:
        return int(self._results[RESULTS.index(name)])

    def buckets(self) -> list[int]:
        """Byte offsets in the flow table of the flow's two candidate buckets."""
        offsets = np.zeros(2, np.int64)
        bucket_offsets(self._context.address, self.found("hashed"), offsets)
        return [int(place) for place in offsets]

    def steps(self) -> Iterator[Step]:
        passage = self._passage
        if not passage.is_reply:
            outer, verdict = HeaderSummary.read(passage.came), self.found("tunnel")
            if verdict != PARSED:
                why = NO_TUNNEL.get(Verdict(verdict)) or PARSE_REASONS[Verdict(verdict)]
                yield Step("outer header", f"{outer}: {why}")
                yield from self._hint()
                return
            mux, own = outer.source, outer.destination
            yield Step("outer header", f"{outer}: {mux} is a mux, {own} is this host's")
        packet, verdict = passage.client_and_vip(), self.found("parsed")
        if verdict != PARSED:
            yield Step("parse", PARSE_REASONS[Verdict(verdict)])
            return
        yield from self._reply_steps() if passage.is_reply else self._request_steps(packet)
        yield from self._hint()

    def _request_steps(self, packet: HeaderSummary) -> Iterator[Step]:
        endpoint, vip = self.found("index"), f"{_destination(packet)}/{packet.name}"
        if endpoint < 0:
            yield Step("match", f"no backend of this host has the VIP {vip}")
            return
        yield Step("match", f"VIP {vip} is endpoint {endpoint}")
        yield self._endpoint_step(endpoint)
        yield self._flow_step("no entry")
        yield from self._translation(packet, _destination)

    def _reply_steps(self) -> Iterator[Step]:
        packet = HeaderSummary.read(self._passage.came)
        dip = f"{_source(packet)}/{packet.name}"
        if self._passage.verdict == Verdict.RESET_SUPPRESSED:
            whose = "DIP {} is a backend's of this host" if self.found("index") >= 0 else "VIP {} is on this host"
            yield Step("match", whose.format(dip))
            yield Step("flow", "removed: the host's stack has no such connection")
            return
        if self.found("index") < 0:
            yield Step("match", f"no backend of this host answers from {dip}")
            return
        yield Step("match", f"DIP {dip} is a backend's of this host")
        yield self._flow_step(
            NO_ENTRY.get(self._passage.verdict, "no entry: this connection did not come through a mux")
        )
        alive = [entry for entry in self._known() if entry["alive"]]
        if alive and not self._is_direct(alive[0]["target"]):
            yield self._endpoint_step(alive[0]["target"])
        yield from self._translation(packet, _source)

    def _endpoint_step(self, endpoint: int) -> Step:
        row = self._snapshot.tables.endpoints[endpoint]
        vip, dip = (
            _end(from_pair(int(row[f"{end}_high"]), int(row[f"{end}_low"])), port_from_wire(int(row[f"{end}_port"])))
            for end in ("vip", "dip")
        )  # port 0: any port, kept unchanged
        how = f"{vip} translates to {dip}" if row["mode"] == NAT else f"{vip} is on this host, no translation"
        asks = "; for unknown connections the agent checks the host's sockets" if row["checks_sockets"] else ""
        return Step("endpoint", f"{endpoint}, {self._name(endpoint)}: {how}{asks}")

    def _known(self) -> list[dict[str, Any]]:
        """Return the flow's entry, if it has one."""
        return [dict(zip(ENTRY, self._entry.tolist(), strict=True))] if self._entry[0] > 0 else []

    def _flow_step(self, none: str) -> Step:
        entries = [
            f"{STATES[entry['state']]}, idle for {max(0, entry['idle']) * TICK_S:.1f} s, endpoint {entry['target']}"
            f" ({self._name(entry['target'])})" + ("" if entry["alive"] else ", expired")
            for entry in self._known()
        ]
        return Step("flow", "; ".join(entries) or none)

    def _translation(self, packet: HeaderSummary, end: Callable[[HeaderSummary], str]) -> Iterator[Step]:
        """Yield the translation, by comparing the frame as it arrived and as it left."""
        if self._passage.left is None:
            return
        before, after = end(packet), end(HeaderSummary.read(self._passage.left))
        yield Step("translation", f"none, {before} is kept" if before == after else f"{before} to {after}")

    def _hint(self) -> Iterator[Step]:
        if self._passage.verdict in HINT:
            yield Step("hint", HINT[self._passage.verdict])

    def _is_direct(self, endpoint: int) -> bool:
        return endpoint == int(self._snapshot.tables.settings[0]["direct_endpoint"])

    def _name(self, endpoint: int) -> str:
        if self._is_direct(endpoint):
            return "direct to the DIP, without a VIP"
        owner = self._snapshot.owners.get(endpoint)
        return f"{owner[0].name}/{owner[1].name}" if owner else "another VIP"


RESULTS = ("tunnel", "parsed", "index", "hashed")


def _end(address: Address | None, port: int | None) -> str:
    return f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"


def _source(header_summary: HeaderSummary) -> str:
    return _end(header_summary.source, header_summary.source_port)


def _destination(header_summary: HeaderSummary) -> str:
    return _end(header_summary.destination, header_summary.port)


@step
def _entry_of(context, hashed, high, low, ports, owner, now, entry):  # type: ignore[no-untyped-def]
    bucket, way, word = lookup(context, hashed, high, low, ports, owner)
    if way >= 0 and target_of(word) < endpoint_limit(context):
        row, endpoint = entry_row(bucket, way & (WAYS - 1)), endpoint_row(endpoints(context), target_of(word))
        entry[0], entry[1], entry[2] = state_of(word), target_of(word), idle_for(row, u64(now))
        entry[3] = is_alive(word, row, endpoint, endpoint, u64(now))


@compiled
def _dry_run_inbound(context_address, address, length, now, results, entry):  # type: ignore[no-untyped-def]
    """Run the steps of ``datapath.agent.inbound`` without side effects.  Arrays as in ``dry_run``."""
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    record.frame, record.end = address, address + u64(length)
    setting, start, end = settings_row(settings(context), 0), frame(context), frame_end(context)
    tunnel = open_tunnel(context, setting, start, end)
    results[0] = tunnel.verdict
    if tunnel.verdict != PARSED:
        return
    packet = parse_at(context, start, tunnel.offset, end, tunnel.bytes_left, tunnel.type)
    results[1] = packet.verdict
    if packet.verdict != PARSED:
        return
    port = destination_port(packet.ports)
    index = match_service(context, setting, VIP, packet.destination_high, packet.destination_low, port, packet.protocol)
    if index < 0 or index >= endpoint_limit(context):
        return
    endpoint = endpoint_row(endpoints(context), index)
    packet = as_delivered(endpoint, packet)
    hashed, ports = inbound_key(setting, endpoint, packet)
    results[2], results[3] = index, hashed
    _entry_of(context, hashed, packet.source_high, packet.source_low, ports, endpoint.owner, now, entry)


@compiled
def _dry_run_outbound(context_address, address, length, now, results, entry):  # type: ignore[no-untyped-def]
    """Run the steps of ``datapath.agent.outbound`` without side effects.  Arrays as in ``dry_run``."""
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    record.frame, record.end = address, address + u64(length)
    packet = parse(context, frame(context), frame_end(context))
    results[1] = packet.verdict
    if packet.verdict != PARSED:
        return
    setting, port = settings_row(settings(context), 0), source_port(packet.ports)
    owner = match_service(context, setting, DIP, packet.source_high, packet.source_low, port, packet.protocol)
    if owner < 0:
        return
    hashed, ports = outbound_key(setting, packet)
    results[2], results[3] = owner, hashed
    _entry_of(context, hashed, packet.destination_high, packet.destination_low, ports, owner, now, entry)
