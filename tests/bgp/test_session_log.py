import logging
from dataclasses import replace

from lbmux.bgp.bgp_settings import Neighbour
from lbmux.bgp.session_log import NO_REASON, PATIENCE_S, SessionLog

DOWN = Neighbour("10.0.1.1", 64512, "active")
REFUSED = replace(DOWN, reason="Received: Bad peer AS")
UP = replace(DOWN, state="established", uptime_s=1.0)


def test_a_reason_is_logged_once_and_at_once() -> None:
    log = SessionLog()
    lines = [line for now in range(10) for line in log.changes([REFUSED], now)]
    why = "BGP session with 10.0.1.1 (AS 64512) is not established (active): Received: Bad peer AS"
    assert lines == [(logging.WARNING, why)]


def test_a_new_session_has_time_and_is_then_logged_without_a_reason() -> None:
    log = SessionLog()
    assert list(log.changes([DOWN], 0)) == [] and list(log.changes([DOWN], PATIENCE_S - 1)) == []
    ((level, line),) = log.changes([DOWN], PATIENCE_S)
    assert level == logging.WARNING and NO_REASON in line


def test_a_session_that_is_established_again() -> None:
    log = SessionLog()
    lines = [line for now, one in enumerate((UP, UP, REFUSED, UP)) for _, line in log.changes([one], now)]
    assert [line.partition(") is ")[2].partition(" (")[0] for line in lines] == [
        "established", "not established", "established"
    ]  # fmt: skip


def test_each_neighbour_by_itself() -> None:
    log, other = SessionLog(), replace(UP, address="10.0.2.1")
    assert len(list(log.changes([UP, other], 0))) == 2
    assert list(log.changes([UP, other], 1)) == []
