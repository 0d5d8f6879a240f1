"""Which listeners are called after a commit, and in which order."""

import asyncio

from lbmux.config.models import Config
from lbmux.daemons.config_listeners import RunningConfig, notify_listeners, on_commit, on_config

RUNNING = RunningConfig(Config(services=()), Config(services=()))


def called(*, only_states: bool) -> list[str]:
    steps: list[str] = []

    async def probe(running: RunningConfig) -> None:
        await asyncio.sleep(0)
        steps.append("probe")

    async def announce(running: RunningConfig) -> None:
        steps.append("announce" if running is RUNNING else "other")

    listeners = [on_commit(lambda _: steps.append("slow path")), on_config(probe), on_commit(announce)]
    asyncio.run(notify_listeners(listeners, RUNNING, only_states=only_states))
    return steps


def test_a_new_configuration_calls_all_listeners_in_order() -> None:
    assert called(only_states=False) == ["slow path", "probe", "announce"]


def test_changed_states_call_no_listener_of_the_configuration() -> None:
    assert called(only_states=True) == ["slow path", "announce"]
