"""The agent's slow path and its sockets: handles punted packets, delivers to the stack and sends to clients."""

import ctypes
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, port_to_wire, to_pair
from lbmux.datapath.frame import KNOWN_LOCAL
from lbmux.datapath.tables import LOCAL
from lbmux.datapath.verdicts import DROPS, PASSES, VERDICTS, Verdict
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.frames.raw_sender import RawSender
from lbmux.frames.tun import Tun
from lbmux.linux.host_sockets import HostSockets
from lbmux.slowpath.agent_slow_path import INBOUND, OUTBOUND, Adopted, AgentContext, AgentSlowPath, Target
from lbmux.slowpath.fragment_out import fragment_packet
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.mux_rows import ETHERNET_MTU, PROTOCOLS
from lbmux.tables.socket_sync import SocketSync, one_socket
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from lbmux.tracing.trace_event import SlowPathNote, TraceEvent, by_route, note_slow_path
from lbmux.wire.header_layouts import ETHERNET_BYTES
from lbmux.wire.numbers import ACK
from lbmux.wire.packet import ethernet_header, ip_packet, read_frame, tcp_header

BUFFER_BYTES = 1 << 17
Send = Callable[[bytes], None]
MOST_TURNS = 2
"""A reassembled packet may itself carry an inner fragment, so it passes the slow path twice at most."""
_INBOUND: NDArray[np.bool_] = np.zeros(2 * VERDICTS, np.bool_)
_OUTBOUND = _INBOUND.copy()
_INBOUND[list(INBOUND)] = _OUTBOUND[list(OUTBOUND)] = True


@dataclass(frozen=True)
class _Served:
    """One backend of this host, matched by protocol, VIP and port."""

    protocol: int
    ports: range
    vip: Address
    target: Target


class SlowAgent:
    """The agent loop calls it with every batch."""

    def __init__(
        self,
        agent: AgentTables,
        worker: Worker,
        tun: Tun,
        sender: RawSender,
        sockets: HostSockets,
        socket_sync: SocketSync,
    ) -> None:
        """``worker``: its own, on the agent's tables; it runs between two batches of the loop."""
        self._agent, self._worker, self._tun, self._sender = agent, worker, tun, sender
        self._sockets, self._socket_sync = sockets, socket_sync
        self._slow = AgentSlowPath(self._host())
        self._one, self._buffer = Batch(1), np.zeros(BUFFER_BYTES, np.uint8)
        self._identification = 0
        self._device = socket.if_nametoindex(tun.name)
        self.to_own_mux: Callable[[bytes], bool] = _elsewhere
        """Takes a frame that is returned to a mux of this host, which is then an edge; says whether it did."""
        self._note: SlowPathNote | None = None
        """The note of the current frame while a trace client watches."""

    def configure(self) -> None:
        """Follow a configuration that has come into force."""
        self._slow.configure(self._host())

    @property
    def counts(self) -> Counter[str]:
        """Counters by name; other parts of the agent may add to them."""
        return self._slow.counts

    def only_replies(self, batch: Batch) -> None:
        """Drop everything but replies that the kernel's program could not translate.

        The TUN device itself sends packets to its link, which must not leave the host.
        """
        others = batch.verdict[: batch.count] >= PASSES
        for index in np.flatnonzero(others).tolist():
            packet = read_frame(_frame(batch, index)) if batch.verdict[index] == Verdict.NOT_TRANSLATED else None
            if packet is None or not any(source.dip == packet.source for source in self._agent.sources):
                batch.verdict[index] = Verdict.NO_LOCAL_BACKEND

    def counters(self) -> dict[str, int]:
        return dict(sorted(self._slow.counts.items()))

    def inbound(self, batch: Batch, event: Sequence[TraceEvent] = ()) -> None:
        """Handle punted frames from muxes; ``event``: trace events of the first frames, while a client watches."""
        now = time.monotonic()
        for index in np.flatnonzero(_INBOUND[batch.verdict[: batch.count]]).tolist():
            verdict, frame = Verdict(int(batch.verdict[index])), _frame(batch, index)
            if index >= len(event):  # not traced
                self._handle(verdict, frame, now)
                continue
            with note_slow_path(event[index], self._slow.counts) as self._note:
                self._handle(verdict, frame, now)
            self._note = None

    def outbound(self, batch: Batch, event: Sequence[TraceEvent] = ()) -> None:
        """Handle punted replies: fragments, packets without a flow entry, ICMP errors."""
        now = time.monotonic()
        for index in np.flatnonzero(_OUTBOUND[batch.verdict[: batch.count]]).tolist():
            verdict, frame = Verdict(int(batch.verdict[index])), _frame(batch, index)
            batch.verdict[index] = Verdict.NO_LOCAL_BACKEND  # the raw sender must not send it
            if index >= len(event):
                self._reply(verdict, frame, now, self._send)
                continue
            with note_slow_path(event[index], self._slow.counts) as self._note:
                self._reply(verdict, frame, now, self._send)
            self._note = None

    def _reply(self, verdict: Verdict, frame: bytes, now: float, send: Send) -> None:
        """Handle a punted reply; ``send`` gets the frame that leaves, if any."""
        if verdict == Verdict.REPLY_FRAGMENT:
            whole = self._slow.outbound(frame, now)
            if whole is not None and (after := self._translate(whole, self._send_in_fragments)) in OUTBOUND:
                self._reply(after, whole, now, self._send_in_fragments)
        elif verdict == Verdict.REPLY_ICMP:
            error = self._slow.own_error(frame, now)
            if error is not None:
                send(error)
        else:
            adopted = self._slow.without_entry(frame, now)
            if adopted == Adopted.KNOWN:
                self._translate(frame, send)
            elif adopted == Adopted.UNCHECKED:
                send(frame)

    def _translate(self, frame: bytes, send: Send) -> Verdict:
        """Run the data path on a reply, and send the result unless it is punted (again) or dropped."""
        self._load(frame)
        self._worker.outbound(self._one, now_ticks())
        verdict = Verdict(int(self._one.verdict[0]))
        if verdict == Verdict.HAIRPIN:
            self._deliver(_frame(self._one, 0)[ETHERNET_BYTES:])
        elif verdict < DROPS and verdict not in OUTBOUND:
            send(_frame(self._one, 0))
        return verdict

    def _adopt(self, flow: Flow) -> Adopted:
        """Make a flow entry if this host has the connection; ``flow`` has the DIP in place of the VIP."""
        if not self._agent.knows_sockets_of(flow.vip):
            return Adopted.UNCHECKED
        try:
            if not self._sockets.has(flow.vip, flow.vip_port, flow.client, flow.client_port):
                return Adopted.GONE
        except OSError:  # the kernel cannot list its sockets
            return Adopted.UNCHECKED
        return Adopted.AMBIGUOUS if self._socket_sync.adopt(_socket_of(flow)) is None else Adopted.KNOWN

    def _forget(self, flow: Flow) -> None:
        self._socket_sync.forget(_socket_of(flow))

    def _vip_of(self, flow: Flow) -> tuple[Address, int] | None:
        """Return the VIP and port that the data path gives a reply of the flow; None if it would not translate it."""
        segment = tcp_header(flow.vip_port, flow.client_port, ACK)  # UDP's length and checksum are not checked
        self._load(ethernet_header(flow.vip.version) + ip_packet(flow.vip, flow.client, flow.protocol, segment))
        self._worker.outbound(self._one, now_ticks())
        if self._one.verdict[0] != Verdict.REPLIED:
            return None
        reply = read_frame(_frame(self._one, 0))
        return None if reply is None or reply.ports is None else (reply.source, reply.ports[0])

    def _send_in_fragments(self, frame: bytes) -> None:
        """Send a translated reply in fragments that fit its path: the kernel refuses longer ones of IPv6."""
        packet = read_frame(frame)
        assert packet is not None  # the data path has read it
        try:
            mtu_bytes = self._sender.path_mtu(packet.destination)
        except OSError:  # no route leads there, so the kernel drops them
            mtu_bytes = ETHERNET_MTU
        self._identification += 1
        for piece in fragment_packet(packet.data, mtu_bytes, self._identification):
            self._send(frame[:ETHERNET_BYTES] + piece)

    def _handle(self, verdict: Verdict, frame: bytes, now: float, turns: int = MOST_TURNS) -> None:
        """Handle one frame; a reassembled one goes through the data path, and back here if that punts it."""
        inbound = self._slow.inbound(verdict, frame, now)
        for packet in inbound.packets:
            self._deliver(packet)
        self._return(frame, inbound.back)
        for whole in inbound.frames:
            self._load(whole, KNOWN_LOCAL if inbound.known_local else 0)
            self._worker.inbound(self._one, now_ticks())
            after = Verdict(int(self._one.verdict[0]))
            if after < PASSES:
                self._deliver(_frame(self._one, 0)[ETHERNET_BYTES:])
            elif after == Verdict.UNKNOWN_CONNECTION and inbound.known_local:
                self._return(frame, self._slow.of_another_vip(whole).back)
            elif after in INBOUND and turns:
                self._handle(after, whole, now, turns - 1)
            elif after >= DROPS and self._note is not None:
                self._note.did.append(after.label)

    def _return(self, frame: bytes, packets: Sequence[bytes]) -> None:
        """Send packets back to the mux that sent ``frame``."""
        for packet in packets:
            begun_s = time.thread_time()
            returned = frame[:ETHERNET_BYTES] + packet
            if not self.to_own_mux(returned):
                self._send(returned)
            self._slow.spend(time.thread_time() - begun_s)

    def _connected(self, flow: Flow) -> bool:
        try:
            return self._sockets.has(flow.vip, flow.vip_port, flow.client, flow.client_port)
        except OSError:  # the kernel cannot list its sockets: trust the mux and the table
            self._slow.counts["unknown_unchecked"] += 1
            return True

    def _load(self, frame: bytes, flags: int = 0) -> None:
        one, buffer = self._one, self._buffer
        buffer[HEADROOM_BYTES : HEADROOM_BYTES + len(frame)] = np.frombuffer(frame, np.uint8)
        one.address[0], one.length[0] = buffer.ctypes.data + HEADROOM_BYTES, len(frame)
        one.flags[0], one.count = flags, 1

    def _deliver(self, packet: bytes) -> None:
        try:
            self._tun.write(packet)
        except OSError:
            self._slow.counts["undelivered"] += 1
        else:
            if self._note is not None:
                self._note.sent.append(by_route(packet)._replace(interface=self._device))

    def _send(self, frame: bytes) -> None:
        """Send a packet by the kernel's routes."""
        self._load(frame)
        self._one.verdict[0] = Verdict.REPLIED
        if self._sender.send(self._one, DROPS) and self._note is not None:
            self._note.sent.append(by_route(frame[ETHERNET_BYTES:]))

    def _host(self) -> AgentContext:
        config, agent = self._agent.config, self._agent
        assert config is not None  # the tables are filled before the slow path is built
        self._served = [
            _Served(
                PROTOCOLS[service.protocol], service.ports, service.vip,
                Target(service.vip if agent.mode == LOCAL else backend.dip,
                       0 if agent.mode == LOCAL else backend.port, agent.asks(config, service, backend)),
            )
            for service, backend in agent.served
        ]  # fmt: skip
        muxes = agent.muxes | frozenset(config.muxes)
        tunnel, settings = config.tunnel, config.slowpath
        return AgentContext(
            agent.own, muxes, self._target, tunnel.gue_port, tunnel.geneve_port, settings.packets_per_s,
            self._connected, self._adopt, self._forget, self._vip_of, settings.second_chance_agent_cpu,
        )  # fmt: skip

    def _target(self, flow: Flow) -> Target | None:
        """Return the backend of a flow: a service with this port comes before a service for any port."""
        here = [one for one in self._served if (one.protocol, one.vip) == (flow.protocol, flow.vip)]
        exact = (one.target for one in here if flow.vip_port in one.ports)
        return next(exact, None) or next((one.target for one in here if 0 in one.ports), None)


def _socket_of(flow: Flow) -> NDArray[Any]:
    return one_socket(
        to_pair(flow.vip), port_to_wire(flow.vip_port), to_pair(flow.client), port_to_wire(flow.client_port),
        flow.protocol,
    )  # fmt: skip


def _elsewhere(returned: bytes) -> bool:
    return False


def _frame(batch: Batch, index: int) -> bytes:
    return ctypes.string_at(int(batch.address[index]), int(batch.length[index]))
