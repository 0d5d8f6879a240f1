"""The host agent, plainly."""

from collections import Counter
from dataclasses import dataclass, field

from lbmux.datapath.frame import KNOWN_LOCAL
from lbmux.datapath.verdicts import Verdict
from tests.datapath import plain_packet as packets
from tests.datapath import plain_tunnel as tunnels
from tests.datapath.plain_flows import ACK, RST, SYN, Idle, Key, PlainFlows
from tests.datapath.plain_hash import halves

LOCAL, NAT = 0, 1


@dataclass
class Endpoint:
    """A VIP and port, and the DIP and port behind it; ``owner`` stands for the DIP and its port."""

    vip: bytes
    vip_port: int
    dip: bytes
    dip_port: int
    protocol: int
    owner: int
    mode: int = NAT
    idle: Idle = field(default_factory=Idle)
    state: int = 1
    generation: int = 0
    mss: int = 0
    checks_sockets: bool = False
    """Whether connections that are not known are left for the host's sockets to be asked about."""
    is_direct: bool = False
    """Whether it stands for connections straight to a DIP, and for no VIP."""


def loaded(data: bytes) -> int:
    return int.from_bytes(data, "little")


class PlainAgent:
    def __init__(
        self,
        own: list[bytes],
        muxes: list[bytes],
        endpoints: list[Endpoint],
        flows: PlainFlows,
        plain: bool = False,
        entropy_muxes: list[bytes] | None = None,
    ) -> None:
        """``entropy_muxes``: their source addresses, whose last two bytes may be anything."""
        self.own, self.muxes, self.endpoints, self.flows = own, muxes, endpoints, flows
        self.plain, self.entropy_muxes = plain, entropy_muxes or []
        self.verdicts: Counter[Verdict] = Counter()
        self.verdict_bytes: Counter[Verdict] = Counter()

    def inbound(self, frame: bytes, now: int, flags: int = 0) -> tuple[Verdict, int, bytes]:
        return self._counted(frame, self._inbound(frame, now, bool(flags & KNOWN_LOCAL)))

    def outbound(self, frame: bytes, now: int) -> tuple[Verdict, int, bytes]:
        return self._counted(frame, self._outbound(frame, now))

    def _counted(self, frame: bytes, result: tuple[Verdict, int, bytes]) -> tuple[Verdict, int, bytes]:
        self.verdicts[result[0]] += 1
        self.verdict_bytes[result[0]] += len(frame)
        return result

    def _inbound(  # noqa: C901 -- one decision a line, in the order of the packet's path
        self, frame: bytes, now: int, known_local: bool
    ) -> tuple[Verdict, int, bytes]:
        tunnel = tunnels.open_tunnel(frame, self.plain)
        if isinstance(tunnel, Verdict):
            return tunnel, -1, frame
        if tunnel.destination not in self.own:
            return Verdict.NOT_TUNNELLED, -1, frame
        if tunnel.source not in self.muxes and tunnel.source[:-2] not in [mux[:-2] for mux in self.entropy_muxes]:
            return Verdict.NOT_A_MUX, -1, frame
        packet = packets.parse_at(frame, tunnel.offset, tunnel.end, tunnel.type, self.plain)
        if isinstance(packet, Verdict):
            return packet, -1, frame
        port = int.from_bytes(packet.ports[2:], "big")
        names = self._vips()
        target = names.get((packet.destination, packet.protocol, port))
        if target is None:
            target = names.get((packet.destination, packet.protocol, 0))
        if target is None:
            return Verdict.NO_LOCAL_BACKEND, -1, frame
        marked = tunnels.carry_mark(frame, packet, tunnel.ecn)
        if marked is None:
            return Verdict.CONGESTED, target, frame
        endpoint = self.endpoints[target]
        dip_port = endpoint.dip_port or port
        checks_sockets = endpoint.checks_sockets and not packet.flags & SYN and not known_local
        hairpin = endpoint.mode == NAT and packet.source == endpoint.dip
        if hairpin:
            packet = packet._replace(source=endpoint.vip)
        remembers = endpoint.mode == NAT or endpoint.checks_sockets
        if remembers and not self._admit(packet, endpoint, dip_port, target, checks_sockets, now):
            return Verdict.UNKNOWN_CONNECTION, target, marked
        kind = b"\x86\xdd" if packet.is_ipv6 else b"\x08\x00"
        frame = frame[:12] + kind + marked[tunnel.offset :]
        if endpoint.mode == NAT:
            frame = self._translated(frame, endpoint.dip, dip_port, "destination")
        if hairpin:
            frame = self._translated(frame, endpoint.vip, int.from_bytes(packet.ports[:2], "big"), "source")
        return Verdict.DELIVERED, target, frame

    def _translated(self, frame: bytes, address: bytes, port: int, side: str) -> bytes:
        packet = packets.parse(frame, self.plain)
        assert not isinstance(packet, Verdict)
        return packets.translate(frame, packet, address, port, side)

    def _admit(
        self, packet: packets.Packet, endpoint: Endpoint, dip_port: int, target: int, checks_sockets: bool, now: int
    ) -> bool:
        """Remember that this client and port came by this VIP.

        False for a connection that began before it was known here, and for one that another VIP still has, of which the
        host's sockets can be asked. Of others the newer VIP counts.
        """
        ports = packet.ports[:2] + dip_port.to_bytes(2, "big")
        high, low = halves(packet.source)
        key, dip = Key(low, loaded(ports), endpoint.owner, high), loaded(endpoint.dip[-4:])
        place = self.flows.find(key, dip)
        if place and self.flows.flow(place).target != target:
            other = self.endpoints[self.flows.flow(place).target]
            if other.checks_sockets and self.flows.is_alive(place, other, other.idle, now):
                return False
            self.flows.forget(place, "gone")
        elif place and self.flows.use(place, dip, endpoint, endpoint.idle, packet.flags, now):
            return True
        if checks_sockets:
            return False
        self.flows.remember(key, dip, target, endpoint.generation, endpoint.idle, now)
        return True

    def _outbound(self, frame: bytes, now: int) -> tuple[Verdict, int, bytes]:
        packet = packets.parse(frame, self.plain)
        if isinstance(packet, Verdict):
            return self._without_ports(packet, frame), -1, frame
        port = int.from_bytes(packet.ports[:2], "big")
        owners = {(e.dip, e.protocol, e.dip_port): e.owner for e in self.endpoints if e.mode == NAT and e.state}
        owner = owners.get((packet.source, packet.protocol, port))
        if owner is None:
            owner = owners.get((packet.source, packet.protocol, 0))
        if owner is None:
            return self._from_vip(packet, port, frame, now)
        ports = packet.ports[2:] + packet.ports[:2]
        high, low = halves(packet.destination)
        key = Key(low, loaded(ports), owner, high)
        place = self._alive(key, loaded(packet.source[-4:]), now)
        if place is None:
            return self._without_entry(packet, key, now), -1, frame
        target = self.flows.flow(place).target
        endpoint = self.endpoints[target]
        is_refused = endpoint.checks_sockets and packet.flags & (RST | ACK) == RST
        if endpoint.is_direct:
            return self._direct(place, bool(is_refused), now), -1, frame
        if is_refused:
            self.flows.forget(place, "gone")
            return Verdict.RESET_SUPPRESSED, target, frame
        self.flows.refresh(place, endpoint, endpoint.idle, now)
        after = packets.translate(frame, packet, endpoint.vip, endpoint.vip_port or port, "source")
        if endpoint.mss and packet.flags & SYN:
            after = clamp_mss(after, packet, endpoint.mss)
        if packet.destination != endpoint.vip:
            return Verdict.REPLIED, target, after
        back = packets.parse(after, self.plain)
        assert not isinstance(back, Verdict)
        after = packets.translate(after, back, endpoint.dip, int.from_bytes(back.ports[2:], "big"), "destination")
        return Verdict.HAIRPIN, target, after[6:12] + after[6:]

    def _direct(self, place: tuple[int, int], is_refused: bool, now: int) -> Verdict:
        self.flows.flow(place).seen = now
        if is_refused:
            self.flows.forget(place)
        return Verdict.NOT_TRANSLATED

    def _alive(self, key: Key, dip: int, now: int) -> tuple[int, int] | None:
        """The place of a flow that is not over."""
        place = self.flows.find(key, dip)
        if place is None:
            return None
        endpoint = self.endpoints[self.flows.flow(place).target]
        return place if self.flows.is_alive(place, endpoint, endpoint.idle, now) else None

    def _vips(self) -> dict[tuple[bytes, int, int], int]:
        endpoints = enumerate(self.endpoints)
        return {(e.vip, e.protocol, e.vip_port): at for at, e in endpoints if e.state and not e.is_direct}

    def _without_entry(self, packet: packets.Packet, key: Key, now: int) -> Verdict:
        if packet.protocol != packets.TCP:
            return Verdict.UNTRACKED
        if packet.flags & RST:
            return Verdict.NOT_TRANSLATED
        if not packet.flags & SYN:
            return Verdict.UNKNOWN_REPLY
        for at, endpoint in enumerate(self.endpoints):
            if endpoint.is_direct and endpoint.state:
                dip = loaded(packet.source[-4:])
                over = self.flows.find(key, dip)
                if over:
                    self.flows.buckets[over[0]][over[1]] = None
                self.flows.remember(key, dip, at, endpoint.generation, endpoint.idle, now)
        return Verdict.NOT_TRANSLATED

    def _without_ports(self, verdict: Verdict, frame: bytes) -> Verdict:
        """Fragments and ICMP errors from a backend's address."""
        header = packets.ethernet(frame, self.plain)
        if verdict not in (Verdict.FRAGMENT, Verdict.ICMP) or isinstance(header, Verdict):
            return verdict
        source, _ = packets.addresses_at(frame, *header)
        if source not in {e.dip for e in self.endpoints if e.mode == NAT and e.state}:
            return verdict
        if verdict == Verdict.FRAGMENT:
            return Verdict.REPLY_FRAGMENT
        headers = packets.ip_headers(frame, header[0], len(frame), header[1], self.plain)
        assert not isinstance(headers, Verdict)
        if headers.transport >= len(frame):
            return verdict
        kind = frame[headers.transport]
        is_error = kind < 128 if len(source) == 16 else kind in (3, 4, 5, 11, 12)
        return Verdict.REPLY_ICMP if is_error else verdict

    def _from_vip(self, packet: packets.Packet, port: int, frame: bytes, now: int) -> tuple[Verdict, int, bytes]:
        """Nothing but a reset of a host that has the VIP itself."""
        untouched = Verdict.NOT_TRANSLATED, -1, frame
        names = self._vips()
        target = names.get((packet.source, packet.protocol, port), names.get((packet.source, packet.protocol, 0)))
        if target is None or packet.flags & (RST | ACK) != RST:
            return untouched
        endpoint = self.endpoints[target]
        if endpoint.mode == NAT or not endpoint.checks_sockets:
            return untouched
        ports = packet.ports[2:] + (endpoint.dip_port or port).to_bytes(2, "big")
        high, low = halves(packet.destination)
        place = self._alive(Key(low, loaded(ports), endpoint.owner, high), loaded(endpoint.dip[-4:]), now)
        if place is None:
            return untouched
        self.flows.forget(place, "gone")
        return Verdict.RESET_SUPPRESSED, target, frame


def clamp_mss(frame: bytes, packet: packets.Packet, most: int) -> bytes:
    at = packet.transport + 20
    option, size = frame[at : at + 4], (frame[packet.transport + 12] >> 4) * 4
    if packet.protocol != packets.TCP or at + 4 > packet.end or size < 24 or option[:2] != b"\x02\x04":
        return frame
    if int.from_bytes(option[2:]) <= most:
        return frame
    now = packets.parse(frame)
    assert isinstance(now, packets.Packet)
    after = packets.put(frame, at + 2, most.to_bytes(2))
    was = int.from_bytes(frame[packet.transport + 16 : packet.transport + 18])
    value = packets.still_wrong(packets.transport_checksum(after, now), packets.transport_checksum(frame, now), was)
    return packets.put(after, packet.transport + 16, value.to_bytes(2))
