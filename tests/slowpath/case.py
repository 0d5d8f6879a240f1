"""A mux's slow path as a whole: frames in, frames out, over the real data path's tables."""

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.l2 import Ether

from lbmux.config.slowpath_models import SlowPath
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.mux_context import MuxContext, vips_of
from lbmux.slowpath.mux_output import Sent
from lbmux.slowpath.mux_slow_path import PUNTED, MuxSlowPath
from lbmux.slowpath.tunnels import carriers
from tests.slowpath.golden import ETHER
from tests.slowpath.tables import INTERFACE, Mux

FAMILIES = pytest.mark.parametrize("family", [4, 6])


class Case:
    """A mux with its data path and its slow path; a frame goes through both as in the program."""

    def __init__(
        self, mtu: int = 1500, muxes: tuple[str, ...] = (), services: list[Any] | None = None,
        tunnel: dict[str, Any] | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        self.mux = Mux(mtu, **({"services": services} if services else {}), **({"tunnel": tunnel} if tunnel else {}))
        self.up = True
        services = [(s.vip, s.protocol, s.port) for s in self.mux.config.services]
        hosts = carriers(self.mux.config)
        place = MuxContext(SlowPath(**settings), vips_of(services), frozenset(map(ip_address, muxes)), hosts)
        own = frozenset(self.mux.control.local.values())
        self.slow = MuxSlowPath(self.mux.forwarder, own, place, lambda vip: self.up, cpu_s=lambda: 0.0)
        self.mux.forwarder.mtus = lambda host, link: self.slow.mtus.of(host, link, self.now)
        self.now = 0.0
        self.verdict = Verdict.FORWARDED

    def arrive(self, packet: Any) -> list[Sent]:
        frame = bytes(packet if isinstance(packet, Ether) else Ether(**ETHER) / packet)
        ((self.verdict, target, after),) = self.mux.forward(frame)
        if self.verdict not in PUNTED:
            return []
        assert after == frame  # nothing has changed it on the way
        return self.slow.handle(self.verdict, frame, target, self.now)

    def answer(self, packet: Any) -> Any:
        (sent,) = self.arrive(packet)
        assert sent.interface == 0
        frame = Ether(sent.data)
        assert (frame.src, frame.dst) == (ETHER["dst"], ETHER["src"])
        return frame.payload

    def tunnelled(self, packet: Any) -> list[tuple[str, Any]]:
        """(host, outer packet) of each frame."""
        sent = self.arrive(packet)
        assert all(one.interface == INTERFACE for one in sent)
        return [(Ether(one.data).payload.dst, Ether(one.data).payload) for one in sent]

    def host_of(self, packet: Any) -> str:
        """Return the host to which the data path sends an ordinary packet."""
        ((verdict, _, frame),) = self.mux.forward(bytes(Ether(**ETHER) / packet))
        assert verdict == Verdict.FORWARDED
        return str(Ether(frame).payload.dst)
