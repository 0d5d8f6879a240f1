"""Files of backend state that survive a restart of the daemon: JSON lists, replaced atomically."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)
State = TypeVar("State")


def prepare(path: Path, lines: Sequence[Sequence[Any]]) -> Path:
    """Write a new file beside ``path``, which will replace it, and sync it. Remove the new file on OSError."""
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("w") as file:
            file.write(json.dumps(lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    return new


def write(path: Path, lines: Sequence[Sequence[Any]], consequence: str) -> None:
    """Replace the file atomically; on failure log the ``consequence``."""
    try:
        prepare(path, lines).replace(path)
    except OSError as error:
        log.warning("%s: %s; %s", path, error.strerror, consequence)


def read(path: Path, parse: Callable[[Any], dict[Any, State]], consequence: str) -> dict[Any, State]:
    """Read and parse the file; empty if it does not exist.  If it is invalid, log the ``consequence``."""
    try:
        return parse(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError):
        log.warning("%s is not valid: %s", path, consequence)
        return {}


def seconds(value: Any) -> float:
    """Return a time in the file, in seconds since 1970; raise ValueError, TypeError, ArithmeticError or OSError."""
    time.gmtime(number := float(value))
    return number
