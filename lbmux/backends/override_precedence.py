"""Where an operator's overrides take precedence over the configuration file: what a reload says of them.  Pure."""

from collections.abc import Iterator

from lbmux.backends.overrides import Order, Orders
from lbmux.config.models import Backend, Config

SAID = {"drain": "drained", "disable": "disabled", "remove": "removed"}


def precedences(file: Config, orders: Orders) -> list[str]:
    """A line for each backend that the file has otherwise than it is in force."""
    found: list[str] = []
    for service in file.services:
        for backend in service.backends:
            order = orders.of.get((service.name, backend.name))
            if order is not None and (said := ", ".join(_differences(backend, order))):
                found.append(f"override: service {service.name}: backend {backend.name}: {said}")
    return found


def _differences(backend: Backend, order: Order) -> Iterator[str]:
    if order.life is not None:
        yield f"{SAID[order.life]} by command (`lbmux enable {backend.name}` ends that)"
    if order.weight is not None and order.weight != backend.weight:
        ends = f"`lbmux weight {backend.name}` ends that"
        yield f"weight {order.weight} by command, not the file's {backend.weight} ({ends})"
