"""A configuration made from a capture: its services, with placeholder backends, so that the capture can be replayed.

A service is a destination that got TCP SYNs or UDP requests. A datagram is a request if no datagram of the opposite
direction came before it, unless it goes from a well-known port to another: then its request preceded the capture.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, from_pair
from lbmux.config.models import Service, over_limits
from lbmux.errors import CaptureError, LbmuxError
from lbmux.plurals import counted
from lbmux.tools.replay.captured_flows import OPENED, REPLY, CapturedFlows, plain_worker
from lbmux.tools.replay.looped_capture import LoopedCapture
from lbmux.wire.numbers import TCP_PROTOCOL

DIPS = {4: ip_network("198.18.0.0/15"), 6: ip_network("2001:2::/48")}
"""The placeholder backends' addresses are from these networks, which are for benchmarks (RFC 2544, RFC 5180)."""
WELL_KNOWN_PORTS = 1024
KEY = ("protocol", "destination_high", "destination_low", "port")


class NoServicesError(LbmuxError):
    """A capture from which no configuration can be made."""

    capture: str
    reason: str

    def __str__(self) -> str:
        return f"{self.capture}: {self.reason}"


@dataclass(frozen=True)
class CapturedService:
    """``flows``: connections, or flows of requests, to it in the capture."""

    protocol: str
    vip: Address
    port: int
    flows: int

    @property
    def name(self) -> str:
        return f"{self.protocol}-{self.vip}-{self.port}"


def services_in(
    looped: LoopedCapture, tell: Callable[[int], None] | None = None
) -> tuple[list[CapturedService], CaptureError | None]:
    """Read a capture. Return its services, those with most flows first, and the error that ended a damaged capture.

    Destinations that cannot be VIPs, such as multicast addresses, are left out. ``tell`` is called with the offset in
    the capture, in bytes. Raise NoServicesError if there is no service.
    """
    flows, damage = CapturedFlows(plain_worker(), every=True), None
    try:
        for frames in looped.batches():
            flows.add(frames)
            if tell:
                tell(looped.offset)
    except CaptureError as error:
        damage = error
    services = sorted(services_of(flows.records), key=lambda service: -service.flows)
    if not services:
        reason = "no TCP SYN and no UDP request to an address that can be a VIP"
        raise NoServicesError(str(looped.path), f"{reason} in {counted(looped.packets, 'packet')}") from damage
    return services, damage


def services_of(flows: NDArray[Any]) -> Iterator[CapturedService]:
    """Yield the services of flows, which are rows of CAPTURED_FLOW."""
    is_tcp = flows["protocol"] == TCP_PROTOCOL
    source, port = (_in_host_order(flows["ports"], shift) for shift in (0, 16))
    is_reply = ((flows["seen"] & REPLY) != 0) | ((source < WELL_KNOWN_PORTS) & (port >= WELL_KNOWN_PORTS))
    requests = np.where(is_tcp, (flows["seen"] & OPENED) != 0, ~is_reply)
    columns = [flows[name] if name in (flows.dtype.names or ()) else port for name in KEY]
    ends = Counter(zip(*(column[requests].tolist() for column in columns), strict=True))
    for (protocol, high, low, number), count in ends.items():
        service = CapturedService("tcp" if protocol == TCP_PROTOCOL else "udp", from_pair(high, low), number, count)
        if _can_be_a_service(service):
            yield service


def _in_host_order(ports: NDArray[np.uint32], shift: int) -> NDArray[np.uint16]:
    return (ports >> shift & 0xFFFF).astype(np.uint16).byteswap()


def _can_be_a_service(service: CapturedService) -> bool:
    ends = {"vip": str(service.vip), "protocol": service.protocol, "port": service.port}
    try:
        Service.model_validate({"name": service.name, **ends, "backends": []})
    except ValueError:
        return False
    return True


def as_yaml(services: Sequence[CapturedService], backends: int, title: str) -> str:
    """Return a configuration. ``backends``: how many each service gets. Raise LbmuxError if it exceeds a limit."""
    for reason in over_limits(len(services), backends * len(services)):
        raise LbmuxError(f"{reason}: use fewer --services or --backends")
    taken = {service.vip for service in services}
    dips = {version: list(islice(_dips(version, taken), backends)) for version in DIPS}
    return "\n".join([f"# {title}", "services:", *_lines(services, dips), ""])


def _dips(version: int, taken: set[Address]) -> Iterator[IPv4Address | IPv6Address]:
    return (address for address in DIPS[version].hosts() if address not in taken)


def _lines(services: Iterable[CapturedService], dips: dict[int, list[Any]]) -> Iterator[str]:
    for service in services:
        yield f"  - name: {service.name}"
        yield f'    vip: "{service.vip}"'
        yield f"    protocol: {service.protocol}"
        yield f"    port: {service.port}    # {counted(service.flows, 'flow')}"
        yield "    backends:"
        for number, dip in enumerate(dips[service.vip.version], 1):
            yield f'      - {{name: h{number}, dip: "{dip}"}}'
