"""How often an agent lists its host's sockets."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from lbmux.config.table_models import Idle
from lbmux.daemons.socket_sync_task import SocketSyncTask


def socket_sync(*idle: Idle) -> SocketSyncTask:
    """An agent with a service of each of these idle times."""
    agent: Any = SimpleNamespace(served=[(SimpleNamespace(idle=one), None) for one in idle])
    nothing: Any = None
    return SocketSyncTask(agent, nothing, nothing, Counter(), nothing)


def test_three_passes_in_the_shortest_idle_time() -> None:
    assert socket_sync(Idle()).pause_s() == pytest.approx(10 / 3)
    assert socket_sync(Idle(), Idle(untrusted_s=60, fin_s=6)).pause_s() == pytest.approx(2)


def test_passes_are_neither_too_often_nor_too_rare() -> None:
    assert socket_sync(Idle(untrusted_s=1)).pause_s() == pytest.approx(1 / 3)
    assert socket_sync().pause_s() == 60 / 3
    assert socket_sync(Idle(untrusted_s=3600, tcp_s=3600, fin_s=3600, udp_s=3600)).pause_s() == 60


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.01, 10 / 3), (0.2, 10), (20, 40), (1000, 40)])
def test_slow_passes_are_rarer_but_no_entry_seen_twice_idles_out(took_s: float, pause_s: float) -> None:
    """The first one may compile for 20 s."""
    assert socket_sync(Idle()).pause_s(took_s) == pytest.approx(pause_s)
