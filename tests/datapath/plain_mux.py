"""The mux, plainly: a dictionary of VIPs, objects for backends, one function from frame to frame."""

from collections import Counter
from dataclasses import dataclass, field

from lbmux.datapath.verdicts import Verdict
from lbmux.datapath.world import TAGGED, UNFINISHED_CHECKSUM

from . import plain_packet as packets
from .plain_flows import Idle, Key, PlainFlows
from .plain_hash import slot_hash


@dataclass(frozen=True)
class Service:
    vip: bytes
    protocol: int
    port: int
    slots: tuple[int, ...]
    idle: Idle = Idle()
    seed: int = 1


@dataclass
class Backend:
    remote: bytes
    destination_mac: bytes = b"\x02\0\0\0\0\x09"
    source_mac: bytes = b"\x02\0\0\0\0\x01"
    local: bytes = bytes([10, 0, 0, 1])
    mtu: int = 1500
    state: int = 1
    generation: int = 0


@dataclass
class Counters:
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    verdict_bytes: Counter[Verdict] = field(default_factory=Counter)
    packets: Counter[int] = field(default_factory=Counter)
    bytes: Counter[int] = field(default_factory=Counter)
    flows: Counter[int] = field(default_factory=Counter)


class PlainMux:
    def __init__(self, services: list[Service], backends: list[Backend], flows: PlainFlows) -> None:
        self.services = services
        self.backends = backends
        self.flows = flows
        self.counters = Counters()

    def run(self, frame: bytes, now: int, flags: int = 0) -> tuple[Verdict, int, bytes]:
        """What becomes of one frame: (verdict, backend or -1, the frame then)."""
        verdict, target, after = self._forward(frame, now, flags)
        self.counters.verdicts[verdict] += 1
        self.counters.verdict_bytes[verdict] += len(frame)
        return verdict, target, after

    def _forward(self, frame: bytes, now: int, flags: int) -> tuple[Verdict, int, bytes]:
        if flags & TAGGED:
            return Verdict.VLAN, -1, frame
        why_not = packets.check_ethernet(frame) or packets.check_ipv4(frame[14:])
        if why_not:
            return why_not, -1, frame
        packet = packets.parse(frame[14:])
        if isinstance(packet, Verdict):
            return packet, -1, frame
        wanted = (packet.destination, packet.protocol, int.from_bytes(packet.ports[2:], "big"))
        names = {(service.vip, service.protocol, service.port): at for at, service in enumerate(self.services)}
        if wanted not in names:
            return Verdict.NOT_VIP, -1, frame
        target = self._choose(packet, names[wanted], now)
        if target < 0:
            return Verdict.NO_BACKEND, -1, frame
        if flags & UNFINISHED_CHECKSUM:
            frame = packets.finish_checksum(frame)
        backend = self.backends[target]
        length = int.from_bytes(frame[16:18], "big") + 20
        if length > backend.mtu:
            return Verdict.TOO_BIG, target, frame
        if backend.destination_mac == bytes(6):
            return Verdict.NO_NEIGHBOUR, target, frame
        self.counters.packets[target] += 1
        self.counters.bytes[target] += length
        after = packets.encapsulate(
            frame, backend.source_mac, backend.destination_mac, backend.local, backend.remote
        )
        return Verdict.FORWARDED, target, after

    def _choose(self, packet: packets.Packet, index: int, now: int) -> int:
        service = self.services[index]
        low = int.from_bytes(b"\0\0\xff\xff" + packet.source, "little")
        key = Key(low, int.from_bytes(packet.ports, "little"), index)
        destination = int.from_bytes(packet.destination, "little")
        place = self.flows.find(key, destination)
        if place:
            target = self.flows.flow(place).target
            if self.flows.use(place, destination, self.backends[target], service.idle, packet.flags, now):
                return target
        if not service.slots:
            return -1
        hashed = slot_hash(service.seed, packet.source, packet.destination, packet.ports, packet.protocol)
        target = service.slots[hashed * len(service.slots) >> 32]
        if target >= len(self.backends):
            return -1
        self.flows.remember(key, destination, target, self.backends[target].generation, service.idle, now)
        self.counters.flows[target] += 1
        return target
