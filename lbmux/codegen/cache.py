"""The directory that caches compiled code between runs.

Numba notices a change to the file that defines a compiled function, but not to the files that it inlines. The
directory's name is therefore a digest of everything that compiled code depends on: sources and compiler versions.

Loading compiled code executes it, so a directory that another user could write to or replace is never used.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import stat
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from lbmux.codegen.sealed import why_not_trusted
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent.parent
MAX_VERSIONS = 4
OURS = re.compile(r"[0-9a-f]{16}")
TAG, SIGNATURE = "CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n# Compiled code of lbmux.\n"
"""This file marks the directory as ours, and as a cache that backups skip (https://bford.info/cachedir)."""


class _UnsafeError(LbmuxError):
    """Another user could have written the code that we would load."""

    why: str


def _root() -> Path:
    """Return ``LBMUX_CACHE`` if it is set, else the user's cache directory."""
    path = os.environ.get("LBMUX_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(path) if path else home / "lbmux"


def digest() -> str:
    """Return a digest of the sources of every layer with compiled code and of the compilers' versions."""
    state = hashlib.sha256(" ".join((sys.version, version("numba"), version("llvmlite"), version("numpy"))).encode())
    for layer in ("wire", "codegen", "datapath", "targets", "frames", "tables"):
        for path in sorted((PACKAGE / layer).rglob("*.py")):
            state.update(path.read_bytes())
    return state.hexdigest()[:16]


@cache
def directory() -> Path | None:
    """Return the directory for this version of the sources. The last MAX_VERSIONS versions are kept.

    Return None, and log why, if no directory can be used. Every start then compiles everything.
    """
    root = _root()
    here = root / digest()
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        # In a sticky directory such as /tmp, other users can write but cannot rename or replace our directory.
        for path in (*root.absolute().parents, *root.resolve().parents):
            _check(path.stat(), path, stat.S_ISVTX)
        _make(root)
        _check(root.stat(), root, stat.S_ISVTX)
        _make(here)
        _check(here.lstat(), here)
    except OSError as error:
        _say_none(root, error.strerror or str(error))
        return None
    except _UnsafeError as error:
        _say_none(root, error.why)
        return None
    with contextlib.suppress(OSError):  # a complete cache may be on a read-only file system
        _tag(here)
        os.utime(here)
        _remove_old(root)
    return here


def _make(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)


def _check(status: os.stat_result, path: Path, excuse: int = 0) -> None:
    """Raise _UnsafeError if other users could write there. ``excuse`` is a mode bit that makes that acceptable."""
    if not stat.S_ISDIR(status.st_mode):
        raise _UnsafeError(f"{path} is not a directory")
    if (reason := why_not_trusted(status)) and not (status.st_uid in (0, os.geteuid()) and status.st_mode & excuse):
        raise _UnsafeError(f"{path} {reason}")


def _say_none(root: Path, reason: str) -> None:
    log.warning("%s: cannot cache compiled code: %s; every start recompiles it (set LBMUX_CACHE)", root, reason)


def _tag(path: Path) -> None:
    if not (path / TAG).exists():
        (path / TAG).write_bytes(SIGNATURE)


def _remove_old(root: Path) -> None:
    """Delete the oldest versions. Only tagged directories are ours to delete."""
    ours = [path for path in root.iterdir() if OURS.fullmatch(path.name) and _is_tagged(path)]
    for path in sorted(ours, key=lambda path: path.stat().st_mtime)[:-MAX_VERSIONS]:
        shutil.rmtree(path, ignore_errors=True)


def _is_tagged(path: Path) -> bool:
    try:
        return not path.is_symlink() and (path / TAG).read_bytes() == SIGNATURE
    except OSError:
        return False
