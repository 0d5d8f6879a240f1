"""An operator's commands about backends, as changes of the orders.  Pure: (file, orders) goes in, orders come out.

What an order makes of the configuration is checked by the configuration's own models, as a file is.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from lbmux.backends.overrides import Order, Ordered, Orders, ordered
from lbmux.backends.removal import BY_COMMAND, settled
from lbmux.config.field_types import Model, said
from lbmux.config.models import Backend, BackendKey, Config, Service
from lbmux.errors import LbmuxError

Checked = TypeVar("Checked", bound=Model)
Change = Callable[[Config, Orders], tuple[Orders, list[BackendKey]]]
"""From the file's configuration and the orders so far: the orders, and the backends they are about."""


class UnknownBackendError(LbmuxError):
    """No service, or not ``service``, has a backend of that name."""

    def __init__(self, backend: str, service: str | None) -> None:
        self.backend, self.service = backend, service
        super().__init__(backend, service)

    def __str__(self) -> str:
        where = f"service {self.service} has" if self.service else "there is"
        return f"{where} no backend {self.backend}: `lbmux show health` lists them"


class OrderError(LbmuxError):
    """An order that cannot be followed: ``what`` of it is wrong, and why."""

    def __init__(self, what: str, reason: str) -> None:
        self.what, self.reason = what, reason
        super().__init__(what, reason)

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


def live(life: Ordered | None, backend: str, service: str | None, now: float) -> Change:
    """Have a backend drain, be disabled or removed, or (None) serve, in one service or in all that have it."""
    if life not in (None, *get_args(Ordered)):
        raise OrderError(str(life), f"is no order: there are {', '.join(get_args(Ordered))}")

    def change(file: Config, orders: Orders) -> tuple[Orders, list[BackendKey]]:
        keys, in_file = _known(file, orders, backend, service), _keys(file)
        of, leaving = dict(orders.of), dict(orders.leaving)
        for key in keys:
            if key in leaving and (life == "disable" or key not in in_file):
                if life == "disable":
                    del leaving[key]
            elif life == "remove" and key not in in_file:
                del of[key]
            else:
                _say(of, key, now, life=life)
        return _followed(file, Orders(orders.of, leaving), Orders(of, leaving), keys, now), keys

    return change


def weigh(weight: int | None, backend: str, service: str | None, now: float) -> Change:
    """Give a backend another weight, or (None) the file's."""
    if weight is not None:
        _checked(Backend, {"dip": "192.0.2.1", "weight": weight}, backend)  # any DIP: the model knows weights

    def change(file: Config, orders: Orders) -> tuple[Orders, list[BackendKey]]:
        keys, of = _known(file, orders.wanted(), backend, service), dict(orders.of)
        for key in keys:
            _say(of, key, now, weight=weight)
        return _followed(file, orders, Orders(of, orders.leaving), keys, now), keys

    return change


def add(service: str, given: Mapping[str, Any], now: float) -> Change:
    """Add a backend, ``given`` as it would stand in the file."""

    def change(file: Config, orders: Orders) -> tuple[Orders, list[BackendKey]]:
        wanted = {one.name: one for one in ordered(file, orders.wanted()).services}
        if service not in wanted:
            raise OrderError(service, "there is no such service: `lbmux show services` lists them")
        backend = _service(wanted[service], given).backends[-1]
        key = service, backend.name
        if key in _keys(file):
            raise OrderError(backend.name, "was removed by command: `lbmux enable` has it serve again")
        of = {**orders.of, key: Order(now, added=backend)}
        return _followed(file, orders, Orders(of, orders.leaving), [key], now), [key]

    return change


def fitting(file: Config, orders: Orders) -> Orders:
    """Less the orders that a new file has made good (it has the added backend, it lacks the removed one) or forbids."""
    in_file, services, of = _keys(file), {service.name for service in file.services}, dict[BackendKey, Order]()
    for key, order in orders.of.items():
        if order.life == "remove" and key not in in_file:
            order = replace(order, life=None)
        if order.added is not None and (key in in_file or key[0] not in services):
            order = replace(order, added=None)
        elif order.added is not None:
            try:
                _check(ordered(file, Orders({**of, key: order})), key[0])
            except OrderError:
                order = replace(order, added=None)
        if order.says:
            of[key] = order
    return Orders(of, orders.leaving)


def _followed(file: Config, before: Orders, after: Orders, keys: Collection[BackendKey], now: float) -> Orders:
    wanted = ordered(file, after.wanted())
    for service in {service for service, _ in keys}:
        _check(wanted, service)
    return settled(file, after, ordered(file, before), before.lives, now, BY_COMMAND)


def _say(of: dict[BackendKey, Order], key: BackendKey, now: float, **what: Any) -> None:
    before = of.get(key, Order(now))
    after = replace(before, **what)
    if not after.says:
        of.pop(key, None)
    elif after != before:
        of[key] = replace(after, since=now)


def _keys(config: Config) -> set[BackendKey]:
    return {(service.name, backend.name) for service in config.services for backend in service.backends}


def _known(file: Config, orders: Orders, backend: str, service: str | None) -> list[BackendKey]:
    """Those of that name, in the file or beside it."""
    keys = sorted(key for key in _keys(file) | _keys(ordered(file, orders)) if key[1] == backend)
    if not (keys := [key for key in keys if service in (None, key[0])]):
        raise UnknownBackendError(backend, service)
    return keys


def _check(config: Config, changed: str) -> None:
    """OrderError where the configuration would not do in a file; of its services only ``changed`` is new."""
    services = tuple(_service(s) if s.name == changed else s for s in config.services)
    _checked(Config, dict(config) | {"services": services}, changed)


def _service(service: Service, *more: Mapping[str, Any]) -> Service:
    backends = (*service.backends, *more)
    return _checked(Service, dict(service) | {"port": service.port or "any", "backends": backends}, service.name)


def _checked(model: type[Checked], values: Mapping[str, Any], what: str) -> Checked:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = next((str(step) for step in reversed(first["loc"]) if isinstance(step, str)), "")
        raise OrderError(what, f"{field}: {said(first, model)}") from error
