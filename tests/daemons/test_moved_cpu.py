"""Packets that arrive on another CPU after a drain (IRQ affinity, `ethtool -X`): their flows keep the backend."""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lbmux.datapath.verdicts import VERDICTS, Verdict
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import steer_packets
from lbmux.tables.flow_sweep import SWEEP_S
from lbmux.targets.bpf.maps import Pinned
from lbmux.targets.bpf.pins import Pins, directory_of
from tests.api.asking import ask
from tests.daemons.slow_lab import PORT, VIPS, balanced, client_socket, served
from tests.lab.routed import until

pytestmark = pytest.mark.root
KERNEL = ("--driver", "xdp", "--detach-on-exit")
FLOWS, IDLE_S, PAUSE_S, TRIES = 6, 2, 0.3, 4
IDLE = {"untrusted_s": IDLE_S, "tcp_s": IDLE_S, "fin_s": IDLE_S, "udp_s": IDLE_S}
KINDS = [(family, protocol) for family in VIPS for protocol in ("tcp", "udp")]


@pytest.fixture
def cpus(lab: Lab) -> Iterator[list[int]]:
    yield sorted(os.sched_getaffinity(0))
    steer(lab, None)


def steer(lab: Lab, cpu: int | None) -> None:
    interfaces = [port.interface for port in lab.topology.ports("router")]
    steer_packets(lab.namespace("router"), interfaces, cpu)


def name_itself(sock: socket.socket, host: int) -> None:
    """Each question is answered with the number of the host."""

    def converse(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(1):
                connection.send(b"%d" % host)

    while True:
        if sock.type == socket.SOCK_DGRAM:
            _, peer = sock.recvfrom(1)
            if peer is None:  # closed
                return
            sock.sendto(b"%d" % host, peer)
        else:
            threading.Thread(target=converse, args=(sock.accept()[0],), daemon=True).start()


def answers(flows: list[socket.socket]) -> list[bytes]:
    for flow in flows:
        flow.send(b"?")
    return [answer(flow) for flow in flows]


def answer(flow: socket.socket) -> bytes:
    """A datagram that a busy machine has dropped is sent again."""
    for _ in range(TRIES if flow.type == socket.SOCK_DGRAM else 0):
        if select.select([flow], [], [], 1)[0]:
            break
        flow.send(b"?")
    return flow.recv(1)


def forwarded_on(lab: Lab, cpu: int) -> int:
    """How many packets the mux's program has forwarded on a CPU."""

    def read() -> int:
        pinned = Pinned.open(Pins(directory_of("eth0", "mux")).generations()[-1])
        assert pinned is not None
        counts = pinned.rows("verdicts").reshape(-1, VERDICTS)["packets"]
        pinned.close()
        return int(counts[cpu, Verdict.FORWARDED])

    return lab.inside("mux1", read)


def test_flows_of_a_drained_backend_stay_on_another_cpu(lab: Lab, cpus: list[int]) -> None:
    assert len(cpus) > 1
    with contextlib.ExitStack() as stack:
        for family, protocol in KINDS:
            stack.enter_context(served(lab, family, protocol, name_itself))
        mux = stack.enter_context(balanced(lab, options=KERNEL, agent_options=KERNEL, idle=IDLE))
        steer(lab, cpus[0])
        flows = []
        for family, protocol in KINDS * FLOWS:
            flows.append(stack.enter_context(client_socket(lab, family, protocol)))
            flows[-1].connect((VIPS[family], PORT[protocol]))
        for _ in range(2):
            before = answers(flows)
        assert set(before) == {b"1", b"2"}
        ask(mux.control, "override", backend="h1", override="drain")
        swept = time.monotonic() + SWEEP_S + 2 * IDLE_S
        while time.monotonic() < swept:
            assert answers(flows) == before
            time.sleep(PAUSE_S)
        on_second = forwarded_on(lab, cpus[1])
        steer(lab, cpus[1])
        for _ in range(3):
            assert answers(flows) == before
        until(lambda: forwarded_on(lab, cpus[1]) > on_second)
