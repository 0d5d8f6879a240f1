"""The host agent, plainly."""

from collections import Counter
from dataclasses import dataclass

from lbmux.datapath.verdicts import Verdict
from lbmux.datapath.world import TAGGED

from . import plain_packet as packets
from .plain_flows import Idle, Key, PlainFlows

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
    idle: Idle = Idle()
    state: int = 1
    generation: int = 0


def loaded(data: bytes) -> int:
    return int.from_bytes(data, "little")


class PlainAgent:
    def __init__(self, own: list[bytes], muxes: list[bytes], endpoints: list[Endpoint], flows: PlainFlows) -> None:
        self.own, self.muxes, self.endpoints, self.flows = own, muxes, endpoints, flows
        self.verdicts: Counter[Verdict] = Counter()
        self.verdict_bytes: Counter[Verdict] = Counter()

    def inbound(self, frame: bytes, now: int, flags: int = 0) -> tuple[Verdict, int, bytes]:
        return self._counted(frame, self._inbound(frame, now, flags))

    def outbound(self, frame: bytes, now: int, flags: int = 0) -> tuple[Verdict, int, bytes]:
        return self._counted(frame, self._outbound(frame, now))

    def _counted(self, frame: bytes, result: tuple[Verdict, int, bytes]) -> tuple[Verdict, int, bytes]:
        self.verdicts[result[0]] += 1
        self.verdict_bytes[result[0]] += len(frame)
        return result

    def _inbound(self, frame: bytes, now: int, flags: int) -> tuple[Verdict, int, bytes]:
        if flags & TAGGED:
            return Verdict.VLAN, -1, frame
        why_not = packets.check_ethernet(frame) or packets.check_ipv4(frame[14:])
        if why_not:
            return why_not, -1, frame
        fragment = int.from_bytes(frame[20:22], "big") & 0x3FFF
        if frame[23] != packets.IPIP or fragment or frame[30:34] not in self.own:
            return Verdict.NOT_TUNNELLED, -1, frame
        if frame[26:30] not in self.muxes:
            return Verdict.NOT_A_MUX, -1, frame
        outer_length = int.from_bytes(frame[16:18], "big")
        inner = frame[34:]
        why_not = packets.check_ipv4(inner[: outer_length - 20])
        if why_not:
            return why_not, -1, frame
        packet = packets.parse(inner)
        if isinstance(packet, Verdict):
            return packet, -1, frame
        wanted = (packet.destination, packet.protocol, int.from_bytes(packet.ports[2:], "big"))
        names = {(e.vip, e.protocol, e.vip_port): at for at, e in enumerate(self.endpoints) if e.state}
        if wanted not in names:
            return Verdict.NOT_HERE, -1, frame
        target = names[wanted]
        endpoint = self.endpoints[target]
        frame = frame[:14] + inner
        if endpoint.mode == NAT:
            self._remember(packet, endpoint, target, now)
            frame = packets.translate(frame, endpoint.dip, endpoint.dip_port, "destination")
        return Verdict.DELIVERED, target, frame

    def _remember(self, packet: packets.Packet, endpoint: Endpoint, target: int, now: int) -> None:
        """That this client and port came by this VIP; where it came by another one before, the newer counts."""
        ports = packet.ports[:2] + endpoint.dip_port.to_bytes(2, "big")
        key = Key(loaded(b"\0\0\xff\xff" + packet.source), loaded(ports), endpoint.owner)
        place = self.flows.find(key, loaded(endpoint.dip))
        if place and self.flows.flow(place).target != target:
            self.flows.forget(place, "gone")
        elif place and self.flows.use(place, loaded(endpoint.dip), endpoint, endpoint.idle, packet.flags, now):
            return
        self.flows.remember(key, loaded(endpoint.dip), target, endpoint.generation, endpoint.idle, now)

    def _outbound(self, frame: bytes, now: int) -> tuple[Verdict, int, bytes]:
        why_not = packets.check_ethernet(frame) or packets.check_ipv4(frame[14:])
        if why_not:
            return why_not, -1, frame
        packet = packets.parse(frame[14:])
        if isinstance(packet, Verdict):
            return packet, -1, frame
        wanted = (packet.source, packet.protocol, int.from_bytes(packet.ports[:2], "big"))
        owners = {(e.dip, e.protocol, e.dip_port): e.owner for e in self.endpoints if e.mode == NAT and e.state}
        if wanted not in owners:
            return Verdict.NOT_TRANSLATED, -1, frame
        ports = packet.ports[2:] + packet.ports[:2]
        key = Key(loaded(b"\0\0\xff\xff" + packet.destination), loaded(ports), owners[wanted])
        place = self.flows.find(key, loaded(packet.source))
        if place is None:
            return Verdict.NOT_TRANSLATED, -1, frame
        target = self.flows.flow(place).target
        endpoint = self.endpoints[target]
        if not self.flows.refresh(place, endpoint, endpoint.idle, now):
            return Verdict.NOT_TRANSLATED, -1, frame
        return Verdict.REPLIED, target, packets.translate(frame, endpoint.vip, endpoint.vip_port, "source")
