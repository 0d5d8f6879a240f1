"""Log formats: one line per event on standard error, as text or as JSON."""

import json
import logging
from datetime import UTC, datetime

FORMATS = ("text", "json")


class Text(logging.Formatter):
    """Formats an event as ``lbmux: MESSAGE``; joins the lines of a message with semicolons."""

    def format(self, record: logging.LogRecord) -> str:
        message = "; ".join(record.getMessage().splitlines())
        return f"lbmux: {message}" + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class Json(logging.Formatter):
    """Formats an event as a JSON object: time (RFC 3339, UTC), level, logger and message.

    ``event`` is the message's template and ``fields`` its values, so events of one kind have the same ``event``.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        arguments = record.args if isinstance(record.args, tuple) else (record.args,) if record.args else ()
        event = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "event": str(record.msg),
            "fields": [one if isinstance(one, int | float | str) else str(one) for one in arguments],
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event)


def set_up(form: str, verbose: bool) -> None:
    """Log lbmux's own events, and only warnings of libraries: numba logs every function that it compiles."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("lbmux").setLevel(logging.DEBUG if verbose else logging.INFO)


def is_json() -> bool:
    return any(isinstance(handler.formatter, Json) for handler in logging.getLogger().handlers)
