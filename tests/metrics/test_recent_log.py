"""The last lines of a daemon's log."""

import logging

from lbmux.metrics.recent_log import MOST_LINES, RecentLog

log = logging.getLogger("lbmux.tests")


def test_lines_of_lbmux_are_kept_with_level_and_time() -> None:
    log.setLevel(logging.DEBUG)
    with RecentLog() as recent:
        log.debug("too fine")
        log.info("backend %s is up", "h1")
        log.warning("BGP session lost")
        logging.getLogger("asyncio").error("another package")
    lines = recent.since(0)
    assert [(one.level, one.text) for one in lines] == [("info", "backend h1 is up"), ("warning", "BGP session lost")]
    assert recent.since(lines[0].time) == lines[1:]


def test_nothing_is_kept_after_the_end() -> None:
    with RecentLog() as recent:
        pass
    log.error("later")
    assert recent.since(0) == []


def test_the_oldest_lines_go() -> None:
    with RecentLog() as recent:
        for number in range(MOST_LINES + 5):
            log.error("%d", number)
    assert [one.text for one in recent.since(0)] == [str(number) for number in range(5, MOST_LINES + 5)]
