"""How events are logged: one line each on standard error, as text or as JSON."""

import json
import logging
from datetime import UTC, datetime

FORMATS = ("text", "json")


class Text(logging.Formatter):
    """``lbmux: MESSAGE``; a message of several lines becomes one."""

    def format(self, record: logging.LogRecord) -> str:
        said = "; ".join(record.getMessage().splitlines())
        return f"lbmux: {said}" + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class Json(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, and apart from each other what the message is
    made of, ``event`` and ``fields``, so that lines of one kind can be told by ``event``."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        given = record.args if isinstance(record.args, tuple) else (record.args,) if record.args else ()
        said = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "event": str(record.msg),
            "fields": [one if isinstance(one, int | float | str) else str(one) for one in given],
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


def set_up(form: str, verbose: bool) -> None:
    """Log our own events; of libraries only warnings: numba at DEBUG would print every function that it compiles."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("lbmux").setLevel(logging.DEBUG if verbose else logging.INFO)


def is_json() -> bool:
    return any(isinstance(handler.formatter, Json) for handler in logging.getLogger().handlers)
