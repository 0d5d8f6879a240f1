"""Which probes prove that a tunnel, its host and the agent there work, for every service.  Pure.

A mux sends a SYN through the tunnel, to a port of the VIP where nobody listens (``tunnel.probe_port``).  An agent
passes it on to its host as traffic of the VIP, in the kernel as well as in user space, and the host's reset comes back.
No server hears of it.
"""

from collections import defaultdict
from collections.abc import Sequence

from lbmux.addresses import Address
from lbmux.config.models import Backend, Config, Service

MOST_VIPS = 256
"""That an agent passes probes on for: each is a row of its tables."""
Pair = tuple[Service, Backend]


def _has_port(service: Service, port: int) -> bool:
    return service.protocol == "tcp" and (port in service.ports or service.port == 0)


def answered(config: Config, served: Sequence[Pair]) -> tuple[Pair, ...]:
    """What an agent has beside ``served``: by VIP a service of the probes' port alone, with the backend that is here.

    A VIP whose own service has that port needs none.
    """
    port, found = config.tunnel.probe_port, dict[Address, Pair]()
    taken = {service.vip for service in config.services if _has_port(service, port)}
    for service, backend in served if config.tunnel.probes else ():
        if service.vip not in taken and len(found) < MOST_VIPS:
            bare = {"protocol": "tcp", "port": port, "port_to": None, "on_down": "rehash", "health": None}
            here = backend.model_copy(update={"port": port})
            found.setdefault(service.vip, (service.model_copy(update={**bare, "backends": (here,)}), here))
    return tuple(found.values())


def asked(config: Config, versions: Sequence[int]) -> dict[Address, list[tuple[str, str]]]:
    """By host, the backends that a mux can probe it by, one of each VIP, as (service, backend) names.

    ``versions``: of the mux's own addresses, by which it is a client.
    """
    port = config.tunnel.probe_port
    owners = {service.vip: service for service in config.services if _has_port(service, port)}
    here = {vip: {backend.tunnel_to for backend in service.backends} for vip, service in owners.items()}
    found = defaultdict[Address, dict[Address, tuple[str, str]]](dict)
    for service in config.services if config.tunnel.probes else ():
        for backend in service.backends:
            host = backend.tunnel_to
            if service.vip.version in versions and (service.vip not in here or host in here[service.vip]):
                found[host].setdefault(service.vip, (service.name, backend.name))
    return {host: list(by_vip.values()) for host, by_vip in found.items()}
