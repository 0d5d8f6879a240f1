"""Select the backends that the doctor can probe from a mux, and give a reason for each of the others."""

from collections.abc import Iterator
from ipaddress import ip_address

from lbmux.addresses import Address
from lbmux.config.models import Config, Service, kind_of
from lbmux.health.datagram_probes import query
from lbmux.tools.doctor.node_state import NodeState
from lbmux.tools.doctor.tunnel_probe import Target

DATAGRAM, QUERY_NUMBER = b"lbmux", 1


def sources(node: NodeState) -> dict[int, Address]:
    """Return the mux's own addresses, by IP version."""
    addresses = map(ip_address, node.runtime.addresses if node.runtime else ())
    return {address.version: address for address in addresses}


def targets(node: NodeState) -> tuple[list[Target], dict[str, list[str]]]:
    """Return the backends that can be probed, and the names of the others by reason."""
    config, own = node.config, sources(node)
    results, left = list[Target](), dict[str, list[str]]()
    for target, reason in _every(config, own) if config is not None and node.runtime is not None else ():
        if reason:
            left.setdefault(reason, []).append(target.name)
        else:
            results.append(target)
    return results, left


def _every(config: Config, own: dict[int, Address]) -> Iterator[tuple[Target, str]]:
    for service in config.services:
        port = _port(service)
        for backend in service.backends:
            target = Target(
                service.name, backend.name, backend.tunnel_to, service.vip, port, service.protocol,
                kind_of(config, service, backend), *_payload(service),
            )  # fmt: skip
            missing = {service.vip.version, backend.tunnel_to.version} - own.keys()
            if missing:
                yield target, f"this mux has no IPv{min(missing)} address to probe from"
            elif not port:
                yield target, "their service matches any port, and no health.port is set"
            else:
                yield target, ""


def _port(service: Service) -> int:
    """Return the port to probe; 0 if the configuration gives none."""
    return service.port or (service.health.port if service.health else None) or 0


def _payload(service: Service) -> tuple[bytes, bool]:
    """Return the datagram's payload, and whether a healthy server answers it."""
    health = service.health
    if service.protocol != "udp" or health is None or health.kind not in ("dns", "udp"):
        return DATAGRAM, False
    return (query(QUERY_NUMBER, health.query) if health.kind == "dns" else health.send.encode()), True
