"""Events of a system with managers; the packets of its connections should notice none of them."""

import signal
from collections.abc import Callable

from lbmux.daemons.manager_link import PATIENCE_S
from lbmux.lab.scoreboard.event import Event
from lbmux.lab.scoreboard.managed_pool import ManagedPool
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest


def _pool(act: Callable[[ManagedPool], None]) -> Callable[[SystemUnderTest], None]:
    return lambda system: act(ManagedPool(system))


def _partition(system: SystemUnderTest) -> None:
    ManagedPool(system).partition(system.scenario.forwarders[0])


def _rejoin(system: SystemUnderTest) -> None:
    ManagedPool(system).rejoin(system.scenario.forwarders[0])


def _lose_agent(system: SystemUnderTest) -> None:
    system.signal_agent(signal.SIGKILL)


def _return_agent(system: SystemUnderTest) -> None:
    system.start_agent()
    ManagedPool(system).restore()


RESTORE = _pool(ManagedPool.restore)
MANAGED_EVENTS = (
    Event("kill-manager", "kill -9 of the primary", _pool(ManagedPool.kill_primary), RESTORE),
    Event("freeze-manager", "SIGSTOP of the primary for 3 s", _pool(ManagedPool.freeze_primary), RESTORE),
    Event("lose-2-managers", "kill -9, with their etcd members", _pool(ManagedPool.kill_minority), RESTORE),
    Event("lose-3-managers", "kill -9 of most: changes are refused", _pool(ManagedPool.kill_majority), RESTORE),
    Event("partition-mux", "a mux is cut off from the managers", _partition, _rejoin),
    Event(
        "restart-mux-without-managers", "all managers stop, then a mux restarts",
        _pool(ManagedPool.restart_mux_without_managers), RESTORE, takes_s=PATIENCE_S,
    ),
    Event("lose-agent", "kill -9 of an agent", _lose_agent, _return_agent),
    Event(
        "upgrade", "managers, then muxes, then agents restart, one at a time", _pool(ManagedPool.upgrade), RESTORE,
        planned=True, takes_s=300.0,
    ),
)  # fmt: skip
