"""Where compiled code is kept between runs.

Numba notices a change of the file that a compiled function stands in, but not of the files that it was
inlined from; so the directory's name is a digest of all that goes into compiled code, sources and compilers.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
KEPT = 4


def _root() -> Path:
    """``LBMUX_CACHE``, else the user's cache directory, else a temporary one where neither can be written."""
    given = os.environ.get("LBMUX_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(given) if given else home / "lbmux"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if os.access(root, os.W_OK):
            return root
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="lbmux-cache-"))


def digest() -> str:
    """Of the sources of all layers that have compiled code, and of the compilers' versions."""
    state = hashlib.sha256(" ".join((sys.version, version("numba"), version("llvmlite"), version("numpy"))).encode())
    for layer in ("datapath", "targets", "frames", "control"):
        for path in sorted((PACKAGE / layer).rglob("*.py")):
            state.update(path.read_bytes())
    return state.hexdigest()[:16]


@cache
def directory() -> Path:
    """The directory for this state of the sources; of earlier states the last few are kept."""
    root = _root()
    here = root / digest()
    here.mkdir(exist_ok=True)
    os.utime(here)
    others = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in others[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)
    return here
