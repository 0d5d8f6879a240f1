"""Files of compiled code: read only if whole, and if no other user could have written them.

A file is a digest and the data; its name is part of the digest, so that one cannot stand for another.  What cannot be
used is compiled again, and what cannot be written is only a warning: the code is in memory.
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
# O_NONBLOCK: to open a pipe in place of a file does not wait.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read(path: Path) -> bytes | None:
    """The data; None where there is no such file or it cannot be used, which the log says."""
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
    """Put in place in one step."""
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
    """Why what is there may be another user's; empty where it cannot be."""
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to user {status.st_uid}"
    if status.st_mode & OTHERS_WRITE:
        return f"others may write it (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _unusable(status: os.stat_result) -> str:
    return why_not_trusted(status) if stat.S_ISREG(status.st_mode) else "is not a file"


def _digest(path: Path, data: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\0" + data).digest()


@cache
def _say_unusable(path: Path, reason: str) -> None:
    """Once: an index is read before it is written, too."""
    log.warning("%s: %s: compiling again", path, reason)


@cache
def _say_not_kept(directory: Path, reason: str) -> None:
    """Once: a start writes many files."""
    log.warning("%s: %s: compiled code is not kept, so the next start compiles again", directory, reason)
