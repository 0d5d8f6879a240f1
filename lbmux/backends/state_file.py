"""What of the backends' lives outlives the daemon: lists in files of JSON."""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)
Kept = TypeVar("Kept")


def prepare(path: Path, lines: Sequence[Sequence[Any]]) -> Path:
    """A file beside ``path`` that is to replace it, on the disk; OSError leaves nothing there."""
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


def write(path: Path, lines: Sequence[Sequence[Any]], without: str) -> None:
    """In one step: whoever reads finds all of it, or all that was there before.  ``without``: what it means if not."""
    try:
        prepare(path, lines).replace(path)
    except OSError as error:
        log.warning("%s: %s: %s", path, error.strerror, without)


def read(path: Path, understand: Callable[[Any], dict[Any, Kept]], without: str) -> dict[Any, Kept]:
    """Nothing, where there is no such file; nor where ``understand`` raises, which the log says."""
    try:
        return understand(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError):
        log.warning("%s cannot be used: %s", path, without)
        return {}
