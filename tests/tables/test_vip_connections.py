"""The count of connections at a host that has the VIPs."""

import subprocess
import sys
from ipaddress import ip_address

import numpy as np

from lbmux.linux.sock_diag import LISTEN, SOCKETS, SYN_SENT
from lbmux.tables.vip_connections import connections_on_vips
from tests.tables.test_agent_tables import MUX, config, service
from tests.tables.test_socket_sync import socket


def test_connections_to_a_vip_and_port_count() -> None:
    services = config(service(1), service(2)).services
    served = [(one, one.backends[0]) for one in services]
    here = [socket(local="192.0.2.1", port=80, remote=f"198.51.100.{number}") for number in range(1, 4)]
    others = [
        socket(local="192.0.2.1", port=81), socket(local="192.0.2.9", port=80), socket(local="192.0.2.1", port=22),
        socket(local="192.0.2.1", port=80, state=LISTEN), socket(local="192.0.2.1", port=80, state=SYN_SENT),
        socket(local="192.0.2.1", port=80, remote=MUX),
    ]  # fmt: skip
    counts = connections_on_vips(served, np.array([*here, *others], SOCKETS), [ip_address(MUX)])
    assert counts == {("s1", services[0].backends[0].name): 3}


def test_nothing_is_compiled() -> None:
    code = "import sys, lbmux.tables.vip_connections; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
