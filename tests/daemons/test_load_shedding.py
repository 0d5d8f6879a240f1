"""A mux in user space that gets more than ``capacity_pps``: what each VIP is admitted."""

import errno
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet

from lbmux.config.models import Config
from lbmux.daemons.load_shedding import EVERYTHING, WINDOW_S, LoadShedding
from lbmux.frames.admission_filter import admission
from lbmux.frames.batch import Batch
from lbmux.frames.socket_filters import NOTHING, Line
from lbmux.lab.topology import VIP
from lbmux.metrics.fair_shares import LEAST, Admitted
from tests.daemons.running_daemons import configuration, service
from tests.daemons.test_mux_daemon import H1, H2
from tests.frames.test_socket_filters import LINK, passes

OTHER, VIP6 = "192.0.2.9", "2001:db8:192::9"
H6 = {"name": "h6", "dip": "2001:db8:1:2::2", "port": 8080}
CAPACITY = 1000


class Shedding(LoadShedding):
    """It gets packets at given rates, less what its program drops."""

    def __init__(self, **more: Any) -> None:
        self.program: tuple[Line, ...] = EVERYTHING
        self.most_lines = 4096
        super().__init__(self._set)
        services = [service("a", 80, [H1]), service("b", 80, [H2], vip=OTHER), service("c", 80, [H6], vip=VIP6)]
        services[1] |= more
        self.configure(Config.model_validate(configuration(*services) | {"capacity_pps": CAPACITY}))
        self.now, self._memory = 100.0, list[Any]()
        self.read(self.now)

    def _set(self, program: tuple[Line, ...]) -> None:
        if len(program) > self.most_lines:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        self.program = program

    def window(self, *sent: tuple[Packet, float]) -> None:
        """Receive packets for a window, ``sent`` per second, and decide."""
        for packet, rate in sent:
            self._receive(packet, round(rate * WINDOW_S * self._share(packet)))
        self.now += WINDOW_S
        self.read(self.now)

    def _share(self, packet: Packet) -> float:
        shares = {str(vip): share for vip, share in self.thinned.items()}.get(getattr(packet, "dst", ""))
        return 1.0 if shares is None else shares.new if is_new(packet) else shares.others

    def _receive(self, packet: Packet, count: int) -> None:
        frame = np.frombuffer(bytes(LINK / packet), np.uint8)
        batch = Batch(max(count, 1))
        batch.count, batch.address[:], batch.length[:] = count, frame.ctypes.data, len(frame)
        if count:
            self.take(batch)


def is_new(packet: Packet) -> bool:
    return TCP in packet and str(packet[TCP].flags) == "S"


def to(vip: str, flags: str = "S") -> Packet:
    packet: Packet = (IPv6(dst=vip) if ":" in vip else IP(dst=vip)) / TCP(dport=80, flags=flags)
    return packet


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_a_flooded_vip_is_admitted_what_the_others_leave(vip: str) -> None:
    shedding = Shedding()
    for _ in range(15):
        shedding.window((to(vip), 20_000), (to(OTHER), 100), (to(OTHER, "A"), 200))
    ((flooded, share),) = shedding.admitted.items()
    assert str(flooded) == vip and share.others == 1.0
    assert 20_000 * share.new == pytest.approx(CAPACITY - 300, rel=0.1)
    assert shedding.dropped == pytest.approx(19_300 * 15 * WINDOW_S, rel=0.3)


def test_established_flows_of_a_flooded_vip_pass_before_its_new_ones() -> None:
    shedding = Shedding()
    for _ in range(15):
        shedding.window((to(VIP), 20_000), (to(VIP, "A"), 400))
    ((_, share),) = shedding.admitted.items()
    assert share.others == 1.0 and share.new < 0.05


def test_shares_follow_the_weights_of_the_vips() -> None:
    shedding = Shedding(share=3)
    for _ in range(15):
        shedding.window((to(VIP), 5000), (to(OTHER), 5000))
    admitted = {str(vip): 5000 * share.new for vip, share in shedding.admitted.items()}
    assert admitted == {VIP: pytest.approx(CAPACITY / 4, rel=0.1), OTHER: pytest.approx(CAPACITY * 3 / 4, rel=0.1)}


def test_the_program_is_in_force_only_while_there_is_too_much() -> None:
    shedding = Shedding()
    shedding.window((to(VIP, "A"), 800), (ARP(), 100))
    assert shedding.program == EVERYTHING and shedding.admitted == {}
    for _ in range(5):
        shedding.window((to(VIP, "A"), 800), (ARP(), 1000))
    assert not all(passes(shedding.program, to(VIP) / UDP()) for _ in range(200)), "other frames take capacity too"
    for _ in range(12):
        shedding.window((to(VIP, "A"), 500))
    assert shedding.program == EVERYTHING and shedding.admitted == {}


def test_frames_that_waited_for_the_process_do_not_count_as_more() -> None:
    shedding = Shedding()
    shedding.now += 2.0
    shedding.read(shedding.now)
    shedding.window((to(VIP, "A"), 15_000))
    assert shedding.admitted == {}


def test_without_the_key_the_rings_own_program_is_in_force_again() -> None:
    shedding = Shedding()
    shedding.otherwise = NOTHING
    for _ in range(3):
        shedding.window((to(VIP), 20_000))
    assert shedding.admitted
    shedding.configure(Config.model_validate(configuration(service("a", 80, [H1]))))
    assert (shedding.wanted, shedding.admitted, shedding.program) == (False, {}, NOTHING)


def test_of_a_black_hole_a_few_packets_pass_and_its_others_share_what_is_left() -> None:
    shedding, flood = Shedding(), (to(VIP), 20_000)
    for _ in range(5):
        shedding.window(flood, (to(OTHER), 500))
    shedding.isolate({ip_address(VIP)})
    for _ in range(15):
        shedding.window(flood, (to(OTHER), 900))
    assert shedding.admitted == {} and shedding.thinned == {ip_address(VIP): Admitted(LEAST, LEAST)}
    passed = sum(passes(shedding.program, to(VIP) / UDP()) for _ in range(2000))
    assert 0 < passed < 2000 * LEAST * 3 and passes(shedding.program, to(OTHER))
    assert shedding.dropped - shedding.unseen == pytest.approx(20_000 * 15 * WINDOW_S, rel=0.3), (
        "not a sign of overload"
    )
    shedding.isolate(set())
    assert shedding.program == EVERYTHING


def test_where_the_kernel_has_memory_for_few_vips_those_with_the_largest_excess_are_held(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shedding = Shedding()
    shedding.most_lines = len(admission({ip_address(VIP): (0.5, 0.5)}, EVERYTHING))
    for _ in range(15):
        shedding.window((to(VIP), 3000), (to(OTHER), 20_000))
    assert [str(vip) for vip in shedding.thinned] == [OTHER]
    assert not all(passes(shedding.program, to(OTHER)) for _ in range(500))
    assert all(passes(shedding.program, to(VIP)) for _ in range(500))
    assert caplog.text.count("raise net.core.optmem_max") == 1


def test_where_it_has_memory_for_none_everything_passes() -> None:
    shedding = Shedding()
    shedding.most_lines = 1
    for _ in range(3):
        shedding.window((to(VIP), 20_000))
    assert shedding.thinned == {} and shedding.program == EVERYTHING
