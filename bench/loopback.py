"""Backends at loopback addresses, for servers in the measured process itself: a file may not have them."""

from ipaddress import IPv4Address

from lbmux.addresses import Address
from lbmux.config.models import Config


def at_loopback(config: Config) -> Config:
    """Return the configuration with 127.0.0.0/8 in place of 10.0.0.0/8 for DIPs and hosts."""

    def moved(address: Address | None) -> Address | None:
        return None if address is None else IPv4Address(bytes([127]) + address.packed[1:])

    services = []
    for service in config.services:
        backends = [b.model_copy(update={"dip": moved(b.dip), "host": moved(b.host)}) for b in service.backends]
        services.append(service.model_copy(update={"backends": tuple(backends)}))
    return config.model_copy(update={"services": tuple(services)})
