"""Compiled programs by name, from the cache where they are there.

This file stays free of Numba: what loads a program that was compiled before need not wait for its import.
"""

import hashlib
import importlib
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lbmux.targets import cache as directories
from lbmux.targets.bpf.elf import Object

SECTION = "lbmux"
PROGRAMS = "lbmux.targets.bpf.programs"


@cache
def compiled(name: str) -> Object:
    """The object of a function, named "module:function", or of one of lbmux.targets.bpf.programs."""
    module, _, function = name.rpartition(":")
    path = directories.directory() / f"{function}{_digest(module)}.o"
    try:
        return Object(path.read_bytes())
    except FileNotFoundError:
        data = _compile(module or PROGRAMS, function)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(data)
    partial.rename(path)
    return Object(data)


def _digest(module: str) -> str:
    """Of a module's source; the cache's directory stands for the state of this package only."""
    spec = find_spec(module) if module else None
    return f"-{hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]}" if spec and spec.origin else ""


def _compile(module: str, function: str) -> bytes:
    from lbmux.targets.bpf.compiler import compile_object

    return compile_object(getattr(importlib.import_module(module), function), SECTION)
