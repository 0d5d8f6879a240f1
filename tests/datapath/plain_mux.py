"""The mux, plainly: a dictionary of VIPs, objects for backends, one function from frame to frame."""

from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from lbmux.datapath.choose import SYN_GRACE
from lbmux.datapath.frame import UNFINISHED_CHECKSUM
from lbmux.datapath.tables import FORMER_TABLE, NO_BASE
from lbmux.datapath.verdicts import Verdict
from lbmux.wire.numbers import SYN
from tests.datapath import plain_packet as packets
from tests.datapath import plain_tunnel as tunnels
from tests.datapath.plain_flows import Idle, Key, PlainFlows
from tests.datapath.plain_hash import halves, keyed, second_hash, slot_hash
from tests.datapath.plain_limits import BURST, KnownSources, Limit

FIELDS = frozenset({"source", "destination", "source_port", "destination_port"})


@dataclass(frozen=True)
class Service:
    """``port`` 0: any port without a service of its own.  ``hashed``: what picks the slot.  ``rules``: the longest
    prefix that matches says whether a source is allowed; where none does, ``otherwise`` says."""

    vip: bytes
    protocol: int
    port: int
    slots: tuple[int, ...]
    idle: Idle = field(default_factory=Idle)
    seed: int = 1
    hashed: frozenset[str] = FIELDS
    rules: tuple[tuple[IPv4Network | IPv6Network, bool], ...] = ()
    otherwise: bool = True
    prices: tuple[int, int, int] = (0, 0, 0)
    """Prices of a packet, a new flow, and a packet that is punted to be rejected, as in RATE rows."""
    rejects: bool = False
    quic: tuple[int, int, dict[bytes, int]] | None = None  # rotation, length in bytes, backend by server id
    tracking: str = "all"
    bases: tuple[int, ...] = ()
    """Each slot's base; empty where all are steady."""
    former: tuple[tuple[int, int], ...] = ()
    """The slots of the former table, with their bases."""
    changed: int = 0
    """When the slots last changed, in ticks."""

    @property
    def is_limited(self) -> bool:
        return any(self.prices[:2])

    def allows(self, source: bytes) -> bool:
        matching = [(net.prefixlen, allowed) for net, allowed in self.rules if ip_address(source) in net]
        return max(matching)[1] if matching else self.otherwise


@dataclass
class Backend:
    remote: bytes
    destination_mac: bytes = b"\x02\0\0\0\0\x09"
    source_mac: bytes = b"\x02\0\0\0\0\x01"
    local: bytes = bytes([10, 0, 0, 1])
    mtu: int = 1500
    state: int = 1
    generation: int = 0
    kind: str = "ipip"
    spread: bool = False
    """The outer source address carries the flow's hash."""
    price: int = 0
    """The price of a new flow, as in a RATE row."""
    service: int = 0

    @property
    def overhead_bytes(self) -> int:
        return tunnels.overhead_bytes(self.kind, len(self.remote) == 16)


@dataclass
class Counters:
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    verdict_bytes: Counter[Verdict] = field(default_factory=Counter)
    packets: Counter[int] = field(default_factory=Counter)
    bytes: Counter[int] = field(default_factory=Counter)
    flows: Counter[int] = field(default_factory=Counter)
    admitted: Counter[int] = field(default_factory=Counter)


class Limits(NamedTuple):
    packets: Limit
    flows: Limit
    rejects: Limit


def is_initial(datagram: bytes) -> bool:
    """Whether a datagram may be a QUIC Initial: RFC 9000, section 17.2.2, and RFC 9369, section 3.2."""
    if len(datagram) < 15 or not datagram[0] & 0x80:
        return False
    return {b"\0\0\0\1": 0, b"\x6b\x33\x43\xcf": 1}.get(datagram[1:5], datagram[0] >> 4 & 3) == datagram[0] >> 4 & 3


class PlainMux:
    def __init__(
        self, services: list[Service], backends: list[Backend], flows: PlainFlows, plain: bool = False, sources: int = 1
    ) -> None:
        """``plain``: only what the kernel does. ``sources``: lines of the sketch of known sources."""
        self.services, self.backends, self.flows, self.plain = services, backends, flows, plain
        self.limits = [Limits(*map(Limit.of, service.prices)) for service in services]
        self.shares = [Limit.of(backend.price) for backend in backends]
        self.known = KnownSources(flows.keys, sources)
        self.counters = Counters()

    def run(self, frame: bytes, now: int, flags: int = 0) -> tuple[Verdict, int, bytes]:
        """Process one frame. Return (verdict, backend or -1, the frame afterwards)."""
        verdict, target, after = self._forward(frame, now, flags)
        self.counters.verdicts[verdict] += 1
        self.counters.verdict_bytes[verdict] += len(frame)
        return verdict, target, after

    def _forward(self, frame: bytes, now: int, flags: int) -> tuple[Verdict, int, bytes]:
        packet = packets.parse(frame, self.plain)
        if isinstance(packet, Verdict):
            return packet, -1, frame
        index = self._service_of(packet)
        if index is None:
            return Verdict.NOT_VIP, -1, frame
        if not self.services[index].allows(packet.source):
            return Verdict.DENIED, -1, frame
        if frame[packet.network + (7 if packet.is_ipv6 else 8)] <= 1:
            return Verdict.TTL, -1, frame
        target = self._choose(frame, packet, index, now)
        if target < 0:
            return Verdict.REJECT if self._rejects(packet, index, now) else Verdict.NO_BACKEND, -1, frame
        over = self._over_limit(frame, packet, target, now) if self.services[index].is_limited else None
        if over is not None:
            return over, target, frame
        if flags & UNFINISHED_CHECKSUM:
            frame = packets.finish_checksum(frame, packet)
        backend = self.backends[target]
        length = packet.end - packet.network + backend.overhead_bytes
        if length > backend.mtu:
            return Verdict.TOO_BIG, target, frame
        if backend.destination_mac == bytes(6):
            return Verdict.NO_NEIGHBOUR, target, frame
        self.counters.packets[target] += 1
        self.counters.bytes[target] += length
        hashed = keyed(self.flows.keys, *halves(packet.source), *self._ports_and_vip(packet))
        after = tunnels.encapsulate(
            frame, packet, backend.kind, backend.source_mac, backend.destination_mac, backend.local, backend.remote,
            second_hash(hashed), backend.spread,
        )  # fmt: skip
        return Verdict.FORWARDED, target, after

    def _service_of(self, packet: packets.Packet) -> int | None:
        names = {(service.vip, service.protocol, service.port): at for at, service in enumerate(self.services)}
        index = names.get((packet.destination, packet.protocol, int.from_bytes(packet.ports[2:], "big")))
        return names.get((packet.destination, packet.protocol, 0)) if index is None else index

    def _rejects(self, packet: packets.Packet, index: int, now: int) -> bool:
        service = self.services[index]
        answered = self.plain and service.rejects and packet.is_rejectable
        return answered and self.limits[index].rejects.take(now)

    def _ports_and_vip(self, packet: packets.Packet) -> tuple[int, int]:
        return int.from_bytes(packet.ports, "little"), int.from_bytes(packet.destination[-4:], "little")

    def _choose(self, frame: bytes, packet: packets.Packet, index: int, now: int) -> int:
        service = self.services[index]
        named = self._named(frame, packet, service)
        if named is not None:
            self.flows.lookups["server_id"] += 1
        current, base = self._slot(packet, service)
        if service.tracking == "none" or (service.tracking == "changed" and current == base):
            target = current if named is None else named
            self.counters.flows[target] += bool(packet.flags & SYN) and 0 <= target < len(self.backends)
            return target if 0 <= target < len(self.backends) else -1
        high, low = halves(packet.source)
        ports, destination = self._ports_and_vip(packet)
        key = Key(low, ports, index, high)
        place = self.flows.find(key, destination)
        if place:
            if named is not None:
                self.flows.flow(place).target = named
                self.flows.flow(place).generation = self.backends[named].generation
            target = self.flows.flow(place).target
            if service.tracking != "all" and not packet.flags & SYN:
                self.flows.flow(place).seen = now
            if self.flows.use(place, destination, self.backends[target], service.idle, packet.flags, now):
                return target
        target = self._without_entry(packet, service, current, base, now) if named is None else named
        if not 0 <= target < len(self.backends):
            return -1
        self.flows.remember(key, destination, target, self.backends[target].generation, service.idle, now)
        self.counters.flows[target] += 1
        return target

    def _slot(self, packet: packets.Packet, service: Service) -> tuple[int, int]:
        """(the backend that stands in the packet's slot, its base), or (-1, -1)."""
        if not service.slots:
            return -1, FORMER_TABLE if service.former and service.tracking != "all" else -1
        slot = self._hashed(packet, service) * len(service.slots) >> 32
        return service.slots[slot], service.bases[slot] if service.bases else service.slots[slot]

    def _without_entry(self, packet: packets.Packet, service: Service, current: int, base: int, now: int) -> int:
        is_syn, is_tcp = bool(packet.flags & SYN), packet.protocol == packets.TCP
        if current == base:
            return current
        if base == FORMER_TABLE and service.former:
            backend, base = service.former[self._hashed(packet, service) * len(service.former) >> 32]
            base = backend if base in (NO_BASE, FORMER_TABLE) else base
        if not 0 <= base < len(self.backends) or not self.backends[base].state:
            return current
        if service.tracking == "all":
            is_new = is_syn or not is_tcp
        elif is_tcp:
            is_new = is_syn and (now - service.changed) & 0xFFFFFFFF > SYN_GRACE
        else:
            is_new = (now - service.changed) & 0xFFFFFFFF > service.idle.trusted
        if is_new:
            return current
        self.flows.lookups["base"] += 1
        return base

    def _hashed(self, packet: packets.Packet, service: Service) -> int:
        def kept(name: str, value: bytes) -> bytes:
            return value if name in service.hashed else bytes(len(value))

        ports = kept("source_port", packet.ports[:2]) + kept("destination_port", packet.ports[2:])
        source, destination = kept("source", packet.source), kept("destination", packet.destination)
        return slot_hash(service.seed, source, destination, ports, packet.protocol)

    def _over_limit(self, frame: bytes, packet: packets.Packet, target: int, now: int) -> Verdict | None:
        """The verdict of a packet that is over a limit of its backend's service."""
        index = self.backends[target].service
        service, is_other_udp = self.services[index], packet.protocol == packets.UDP and not self.services[index].quic
        known = (packet.source, index, packet.protocol, now)
        if packet.protocol == packets.TCP:
            is_new = bool(packet.flags & SYN)
        elif service.quic:
            is_new = self._server_id(frame, packet, service) is None and is_initial(frame[packet.transport + 8 :])
        else:
            is_new = not self.known.has(*known)
        limits = self.limits[index]
        if is_new:
            if not self.shares[target].take(now):
                return Verdict.OVER_FLOW_SHARE
            if not limits.flows.take(now):
                return Verdict.OVER_FLOW_RATE
        if not limits.packets.take(now, BURST // 2 if is_new else BURST):
            return Verdict.OVER_PACKET_RATE
        self.counters.admitted[target] += is_new
        if is_other_udp:
            self.known.enter(*known)
        return None

    def _named(self, frame: bytes, packet: packets.Packet, service: Service) -> int | None:
        """The backend in use that a QUIC connection id names."""
        named = self._server_id(frame, packet, service)
        return named if named is not None and self.backends[named].state else None

    def _server_id(self, frame: bytes, packet: packets.Packet, service: Service) -> int | None:
        """The backend that a QUIC connection id names."""
        at = packet.transport + 8
        if service.quic is None or packet.protocol != packets.UDP or len(frame) < at + 15:
            return None
        rotation, size, servers = service.quic
        datagram = frame[at:]
        is_long = datagram[0] & 0x80
        if is_long and datagram[5] < size + 1:
            return None
        identifier = datagram[6:] if is_long else datagram[1:]
        if identifier[0] >> 5 != rotation:
            return None
        return servers.get(identifier[1 : 1 + size])
