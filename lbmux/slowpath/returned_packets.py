"""Packets that hosts return to a mux, because they do not have the connection: the mux's part of the second chance.

The mux sends such a packet to the next candidate (lbmux.slowpath.second_chance). If none is left, it resets the
connection.
"""

from collections.abc import Callable

from lbmux.addresses import Address
from lbmux.slowpath.candidates import host_key
from lbmux.slowpath.icmp_quotes import flow_of
from lbmux.slowpath.mux_context import MuxContext
from lbmux.slowpath.mux_output import BY_ROUTE, MuxOutput, Sent
from lbmux.slowpath.resets import reset
from lbmux.slowpath.second_chance import SearchStage, next_candidate
from lbmux.slowpath.slow_path_flow import Candidates, Flow, client_flow
from lbmux.slowpath.source_budget import US_PER_S, cpu_budget
from lbmux.wire.packet import Packet, ip_source_bytes, read_ip, source_bytes


class ReturnedPackets:
    """Handles returned packets within a budget of CPU time, which ``cpu_s`` measures in seconds."""

    def __init__(self, output: MuxOutput, context: MuxContext, cpu_s: Callable[[], float]) -> None:
        self._output, self._forwarder, self._cpu_s = output, output.forwarder, cpu_s
        self._client = b""
        """The source of the last packet."""
        self.configure(context)

    def configure(self, context: MuxContext) -> None:
        self._context = context
        self._budget = cpu_budget(context.settings.second_chance_cpu, "returned_over_cpu", self._output.counts)
        self._hosts = {host.packed for host in context.hosts if host not in context.muxes}

    def is_returned(self, frame: bytes) -> bool:
        """Return whether a host sent the frame. The test is cheap."""
        return source_bytes(frame) in self._hosts

    def is_over_budget(self, client: bytes, now: float) -> bool:
        """Return whether the CPU budget of the client of a returned packet is used up."""
        return not self._budget.has(client, now)

    def handle(self, packet: Packet, now: float) -> list[Sent]:
        """Handle a packet in IP in IP from a host. ``now`` is in seconds of a monotonic clock."""
        self._client = ip_source_bytes(packet.payload)
        if not self._budget.has(self._client, now):
            return []
        begun_s = self._cpu_s()
        sent = self._second_chance(packet)
        self.spend(self._cpu_s() - begun_s)
        return sent

    def spend(self, seconds: float) -> None:
        """Charge the CPU time of sending the last packet to the next candidate to its client's budget."""
        self._budget.spend(self._client, seconds * US_PER_S)

    def _second_chance(self, outer: Packet) -> list[Sent]:
        """Send the packet to the next candidate. If no candidate is left, send the client a reset."""
        inner = read_ip(outer.payload, link=outer.link)
        flow = None if inner is None else flow_of(inner) if inner.is_icmp else client_flow(inner)
        if inner is None or flow is None or flow.vip not in self._context.vips:
            return self._output.drop("returned_unusable")
        if inner.hops <= 1:
            return self._output.drop("returned_ttl")
        candidates = self._forwarder.candidates(flow, self._context.settings.second_chance_max_hosts)
        refused = self._forwarder.at_host([*candidates.likely, *candidates.rest], outer.source)
        stage = SearchStage.of(outer.hops)
        if inner.is_icmp and stage == SearchStage.FIRST and self._has_two_copies(flow, candidates):
            return self._output.drop("returned_copy")
        key = host_key(flow, outer.source) if stage == SearchStage.REST else 0
        chosen = next_candidate(candidates, stage, refused, key)
        if chosen is None:
            return self._no_candidate_left(inner, flow, outer.source)
        backend, stage = chosen
        self._output.counts["returned_forwarded"] += 1
        if not inner.is_icmp:
            self._assign(flow, backend, candidates, outer.source)
        return self._output.tunnel(inner, backend, stage)

    def _has_two_copies(self, flow: Flow, candidates: Candidates) -> bool:
        """Return whether two hosts got a copy of an ICMP error about the flow. Only one of them is searched for."""
        return len(candidates.likely) > 1 and self._forwarder.entry(flow) is None

    def _assign(self, flow: Flow, backend: int, candidates: Candidates, refused_by: Address) -> None:
        """Direct later packets to the backend that is tried now.

        Each of a client's packets makes its own search. The flow's entry follows the most advanced search. Searches
        behind it do not set it back, or they could prevent each other from finding the connection.
        """
        entry = self._forwarder.entry(flow)
        if (
            entry is None
            or self._forwarder.at_host([entry], refused_by)
            or candidates.position(entry) < candidates.position(backend)
        ):
            self._forwarder.assign(flow, backend)

    def _no_candidate_left(self, inner: Packet, flow: Flow, last: Address) -> list[Sent]:
        """Send a reset: the last candidate does not have the connection either."""
        answer = reset(inner)
        if answer is None:
            return self._output.drop("returned_not_answered")
        entry = self._forwarder.entry(flow)
        if entry is not None and self._forwarder.at_host([entry], last):
            self._forwarder.forget(flow)
        self._output.counts["returned_reset"] += 1
        return [Sent(BY_ROUTE, answer)]
