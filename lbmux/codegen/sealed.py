"""Files of compiled code that are loaded only if they are intact and no other user could have written them.

A file holds a digest and the data. The digest covers the file's name, so one file cannot replace another. Code that
cannot be read is recompiled. A failed write is only a warning, since the code is in memory.
"""

import contextlib
import hashlib
import logging
import os
import stat
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

DIGEST_BYTES = 32
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
# O_NONBLOCK: do not block if the path is a FIFO.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(path: Path) -> bytes | None:
    """Return the data, or None if the file does not exist or cannot be used. Log why it cannot be used."""
    try:
        with open(os.open(path, READ), "rb") as file:
            reason = _unusable(os.fstat(file.fileno()))
            content = b"" if reason else file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        reason, content = error.strerror or str(error), b""
    data = content[DIGEST_BYTES:]
    if not reason and content[:DIGEST_BYTES] != _digest(path, data):
        reason = "is damaged"
    if reason:
        _say_unusable(path, reason)
        return None
    return data


def write(path: Path, data: bytes) -> None:
    """Write the file atomically."""
    new = None
    try:
        descriptor, new = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mode 0600
        with open(descriptor, "wb") as file:
            file.write(_digest(path, data) + data)
        os.replace(new, path)
    except OSError as error:
        if new is not None:
            with contextlib.suppress(OSError):
                os.unlink(new)
        _say_not_kept(path.parent, error.strerror or str(error))


def why_not_trusted(status: os.stat_result) -> str:
    """Return why another user could have written the file, or an empty string if none could."""
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to user {status.st_uid}"
    if status.st_mode & OTHERS_WRITE:
        return f"is writable by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _unusable(status: os.stat_result) -> str:
    return why_not_trusted(status) if stat.S_ISREG(status.st_mode) else "is not a regular file"


def _digest(path: Path, data: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\0" + data).digest()


@cache
def _say_unusable(path: Path, reason: str) -> None:
    """Log once: an index is also read before it is written."""
    log.warning("%s %s; recompiling", path, reason)


@cache
def _say_not_kept(directory: Path, reason: str) -> None:
    """Log once: a start writes many files."""
    log.warning("%s: cannot save compiled code: %s; the next start recompiles it", directory, reason)
