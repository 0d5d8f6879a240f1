"""Counts the live connections of backends whose host has the VIPs: in mode local, and at edges.

It imports no compiled code: an edge that forwards nothing does not compile.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, port_to_wire, to_pair
from lbmux.config.models import Backend, BackendKey, Service
from lbmux.linux.sock_diag import LISTEN, SYN_SENT
from lbmux.wire.numbers import TCP_PROTOCOL, UDP_PROTOCOL

PROTOCOLS = {"tcp": TCP_PROTOCOL, "udp": UDP_PROTOCOL}


def connections_on_vips(
    served: Iterable[tuple[Service, Backend]], sockets: NDArray[Any], muxes: Iterable[Address] = ()
) -> Mapping[BackendKey, int]:
    """Return the number of live connections by backend, without those that have none; ``sockets``: SOCKETS rows.

    A socket has the VIP's address and port.  ``muxes``: their connections are probes.
    """
    sockets = sockets[(sockets["state"] != LISTEN) & (sockets["state"] != SYN_SENT)]
    for mux in muxes:
        sockets = sockets[(sockets["remote"] != np.array(to_pair(mux), np.uint64)).any(axis=1)]
    counts = Counter[BackendKey]()
    for service, backend in served:
        mine = sockets[sockets["protocol"] == PROTOCOLS[service.protocol]]
        mine = mine[(mine["local"] == np.array(to_pair(service.vip), np.uint64)).all(axis=1)]
        if service.port:
            mine = mine[np.isin(mine["local_port"], [port_to_wire(port) for port in service.ports])]
        counts[service.name, backend.name] += len(mine)
    return +counts
