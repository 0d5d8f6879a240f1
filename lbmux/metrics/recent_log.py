"""The last lines of a daemon's own log, so that tools can show events beside its traffic."""

import logging
from collections import deque

from lbmux.api.answers import HistoryEvent

MOST_LINES = 500


class RecentLog(logging.Handler):
    """Keeps the last MOST_LINES lines of lbmux's loggers, from INFO up, while it is entered."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[HistoryEvent] = deque(maxlen=MOST_LINES)

    def __enter__(self) -> "RecentLog":
        logging.getLogger("lbmux").addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger("lbmux").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(HistoryEvent(record.created, record.levelname.lower(), record.getMessage()))

    def since(self, time: float) -> list[HistoryEvent]:
        """Return the lines after ``time``."""
        return [one for one in self._lines.copy() if one.time > time]
