"""The configuration that the tables are made of: the file's, less the backends that are down or out of service.  Pure.

A backend that drains keeps its row, with no weight: it gets no new flows, and those that it has stay.  One that is down
or disabled is left out: the data path gives its flows to others as soon as their entries' backend is gone.
"""

from collections.abc import Mapping, Set
from typing import Literal

from lbmux.control.config import Backend, Config, Service

Key = tuple[str, str]
"""The names of a service and of its backend."""
Order = Literal["drain", "disable"]
"""What an operator wants of a backend, where it is not to serve."""


def effective(config: Config, down: Set[Key], orders: Mapping[Key, Order]) -> Config:
    services = tuple(_service(service, down, orders) for service in config.services)
    return config.model_copy(update={"services": services})


def below_watermark(service: Service, down: Set[Key], orders: Mapping[Key, Order]) -> bool:
    """Whether so few of the backends that are not disabled seem healthy that the probes are not believed."""
    if service.health is None or service.health.watermark is None:
        return False
    asked = [b for b in service.backends if orders.get((service.name, b.name)) != "disable"]
    healthy = sum((service.name, b.name) not in down for b in asked)
    return healthy < service.health.watermark * len(asked)


def _service(service: Service, down: Set[Key], orders: Mapping[Key, Order]) -> Service:
    believed = service.health is not None and not below_watermark(service, down, orders)
    kept: list[Backend] = []
    for backend in service.backends:
        key = service.name, backend.name
        if orders.get(key) == "disable" or (believed and key in down):
            continue
        kept.append(backend.model_copy(update={"weight": 0}) if orders.get(key) == "drain" else backend)
    return service if tuple(kept) == service.backends else service.model_copy(update={"backends": tuple(kept)})
