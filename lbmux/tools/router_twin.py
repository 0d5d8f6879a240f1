"""Replicate a router in a network namespace, with its hash settings and its next hops to a VIP, and send it a packet.

The kernel's own hash then answers for any router whose seed is known (net.ipv4.fib_multipath_hash_seed, Linux 6.11).
The packet enters by one TUN device and leaves by a mux's.  The namespace ends with the thread that made it.
"""

import ctypes
import os
import select
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lbmux.errors import SetupError
from lbmux.frames.tun import Tun
from lbmux.tools.packet_text import ClientPacket
from lbmux.wire.header_layouts import ETHERNET_BYTES

CLONE_NEWNET = 0x40000000
PATIENCE_S = 2.0
LONGEST = 2048
LINK_LOCAL = "fe80::1"
"""The gateway on each device.  IPv6 multipath routes need one."""
ROUTER = {
    "net.ipv4.ip_forward": 1, "net.ipv4.conf.all.rp_filter": 0, "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv6.conf.all.disable_ipv6": 0, "net.ipv6.conf.default.disable_ipv6": 0, "net.ipv6.conf.all.forwarding": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Hashing:
    """How a Linux router hashes flows.  The defaults are those of lbmux's lab."""

    seed: int
    policy: int = 3
    fields: int = 55

    def settings(self) -> dict[str, int]:
        own = {"policy": self.policy, "fields": self.fields}
        both = {f"net.ipv{v}.fib_multipath_hash_{name}": value for v in (4, 6) for name, value in own.items()}
        return both | {"net.ipv4.fib_multipath_hash_seed": self.seed}


def choice(packet: ClientPacket, hashing: Hashing, weights: Sequence[int]) -> int:
    """The index of the next hop that the packet takes.  ``weights``: those of the next hops, in the route's order.

    Raise SetupError if no namespace can be made, or if the kernel lacks the settings.
    """
    with ThreadPoolExecutor(1) as thread:  # the thread enters the namespace, which ends with it
        return thread.submit(_ask, packet, hashing, weights).result()


def _ask(packet: ClientPacket, hashing: Hashing, weights: Sequence[int]) -> int:
    _leave()
    _set(ROUTER | hashing.settings())
    with ExitStack() as stack:
        client, *muxes = [stack.enter_context(Tun(f"hop{number}", 1)) for number in range(len(weights) + 1)]
        _connect(packet, client, muxes, weights)
        client.write(replace(packet, length=None, caught=None).frame()[ETHERNET_BYTES:])
        while ready := select.select(muxes, [], [], PATIENCE_S)[0]:
            for mux in ready:
                if packet.vip.packed in os.read(mux.fileno(), LONGEST):  # skip the kernel's own IPv6 packets
                    return muxes.index(mux)
    raise SetupError(
        "the replicated router", "it forwarded nothing", "check that the client's address is a unicast address"
    )


def _leave() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise SetupError("a network namespace", os.strerror(ctypes.get_errno()), "--seed needs root")


def _set(settings: dict[str, int]) -> None:
    for name, value in settings.items():
        try:
            Path("/proc/sys", *name.split(".")).write_text(str(value))
        except OSError as error:
            reason = error.strerror or str(error)
            raise SetupError(f"sysctl {name}={value}", reason, "hash seeds need Linux 6.11 or newer") from error


def _connect(packet: ClientPacket, client: Tun, muxes: Sequence[Tun], weights: Sequence[int]) -> None:
    from pyroute2 import IPRoute  # slow to import

    is_ipv6 = packet.vip.version == 6
    with IPRoute() as ip:
        index = {device: ip.link_lookup(ifname=device.name)[0] for device in (client, *muxes)}
        for one in index.values():
            ip.link("set", index=one, state="up")
        gateway = {"gateway": LINK_LOCAL} if is_ipv6 else {}
        hops: list[dict[str, Any]] = [
            {"oif": index[mux], "hops": weight - 1} | gateway for mux, weight in zip(muxes, weights, strict=True)
        ]
        how = {"multipath": hops} if len(hops) > 1 else {"oif": index[muxes[0]]}
        family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
        ip.route("add", family=family, dst=f"{packet.vip}/{packet.vip.max_prefixlen}", **how)
