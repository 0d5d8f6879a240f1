"""Selects the probes that test a tunnel, its host and the agent there, for all services.

A mux sends a SYN through the tunnel, to a port of the VIP without a listener (``tunnel.probe_port``).  The agent
delivers it to its host like traffic of the VIP, in the kernel as in user space, and the host's reset returns.  No
server sees the probe.
"""

from collections import defaultdict
from collections.abc import Sequence

from lbmux.addresses import Address
from lbmux.config.models import Backend, Config, Service

MOST_VIPS = 256
"""The VIPs for which an agent delivers probes. Each takes a row of its tables."""
Pair = tuple[Service, Backend]


def _has_port(service: Service, port: int) -> bool:
    return service.protocol == "tcp" and (port in service.ports or service.port == 0)


def probe_services(config: Config, served: Sequence[Pair]) -> tuple[Pair, ...]:
    """Return the services that an agent adds to ``served``: one per VIP, on the probe port, with the local backend.

    A VIP whose own service has that port needs none.
    """
    port, pairs = config.tunnel.probe_port, dict[Address, Pair]()
    taken = {service.vip for service in config.services if _has_port(service, port)}
    for service, backend in served if config.tunnel.probes else ():
        if service.vip not in taken and len(pairs) < MOST_VIPS:
            bare = {"protocol": "tcp", "port": port, "port_to": None, "on_down": "rehash", "health": None}
            here = backend.model_copy(update={"port": port})
            pairs.setdefault(service.vip, (service.model_copy(update={**bare, "backends": (here,)}), here))
    return tuple(pairs.values())


def probe_paths(config: Config, versions: Sequence[int]) -> dict[Address, list[tuple[str, str]]]:
    """Return by host the (service, backend) names through which a mux can probe it, one for each VIP.

    ``versions``: IP versions of the mux's own addresses, from which it probes.
    """
    port = config.tunnel.probe_port
    owners = {service.vip: service for service in config.services if _has_port(service, port)}
    here = {vip: {backend.tunnel_to for backend in service.backends} for vip, service in owners.items()}
    by_host = defaultdict[Address, dict[Address, tuple[str, str]]](dict)
    for service in config.services if config.tunnel.probes else ():
        for backend in service.backends:
            host = backend.tunnel_to
            if service.vip.version in versions and (service.vip not in here or host in here[service.vip]):
                by_host[host].setdefault(service.vip, (service.name, backend.name))
    return {host: list(by_vip.values()) for host, by_vip in by_host.items()}
