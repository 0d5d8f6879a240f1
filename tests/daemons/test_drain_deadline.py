"""A drained backend with a steady flow: it keeps the flow until its deadline, and not for ever."""

import time

import pytest
from scapy.layers.inet import IP, UDP

from lbmux.cli.main import run
from lbmux.lab.lab import Lab
from tests.daemons.running_daemons import Wire, configuration, running, send, service

pytestmark = pytest.mark.root
BOTH = [{"name": f"h{n}", "dip": f"10.1.{n}.2", "port": 53} for n in (1, 2)]
DATAGRAM = bytes(IP(src="198.51.100.2", dst="192.0.2.1") / UDP(sport=40000, dport=53))
WAIT_S = 20


def host_of(lab: Lab, wires: dict[int, Wire]) -> int:
    """Send a datagram of the flow, and return the host to which it went."""
    send(lab, "client", DATAGRAM)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for number, wire in wires.items():
            if wire.frames(1, 0.05, tunnelled_from=40000):
                return number
    raise AssertionError("the datagram went nowhere")


def test_a_steady_flow_moves_at_the_deadline(lab: Lab) -> None:
    lab.write_config(configuration(service("dns", 53, BOTH, protocol="udp")) | {"tunnel": {"probes": False}})
    with running(lab, "mux1", "mux") as mux, Wire(lab, "host1") as one, Wire(lab, "host2") as two:
        wires = {1: one, 2: two}
        first = host_of(lab, wires)
        assert host_of(lab, wires) == first  # now the flow is trusted
        began = time.monotonic()
        assert run(["drain", f"h{first}", "--deadline", "2s", "--control", str(mux.control)]) == 0
        kept = 0
        while host_of(lab, wires) == first:
            assert time.monotonic() - began < WAIT_S, mux.log
            kept += 1
        assert kept and time.monotonic() - began >= 1.9
        mux.wait_for("disabled: its drain's deadline has passed")
