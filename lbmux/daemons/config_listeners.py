"""Listeners that a commit of the tables calls, in order, with the configuration that is in force.

A listener of the configuration runs after a reload or an operator's override.  A listener of commits also runs when
only backend states changed (a health check failed or recovered).
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from lbmux.config.models import Config


@dataclass(frozen=True)
class RunningConfig:
    """The configuration in force: ``wanted`` as the file and the overrides say, ``effective`` as the tables hold it.

    ``effective`` lacks backends that are down or disabled.
    """

    wanted: Config
    effective: Config


Listen = Callable[[RunningConfig], Awaitable[None] | None]


@dataclass(frozen=True)
class Listener:
    """One step; ``on_states``: whether it also runs when only backend states changed."""

    listen: Listen
    on_states: bool


def on_config(listen: Listen) -> Listener:
    return Listener(listen, on_states=False)


def on_commit(listen: Listen) -> Listener:
    return Listener(listen, on_states=True)


async def notify_listeners(listeners: Iterable[Listener], running: RunningConfig, *, only_states: bool) -> None:
    """Call the listeners in order.  Plain functions at the head of the list run before the next packet."""
    for listener in listeners:
        if listener.on_states or not only_states:
            result = listener.listen(running)
            if inspect.isawaitable(result):
                await result
