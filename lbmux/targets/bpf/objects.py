"""Compiled programs by name, from the cache where they are there.

This file stays free of Numba: what loads a program that was compiled before need not wait for its import.
"""

import os
from functools import cache

from lbmux.targets import cache as directories
from lbmux.targets.bpf.elf import Object

SECTION = "lbmux"


@cache
def compiled(name: str) -> Object:
    """The object of a function of lbmux.targets.bpf.programs (or "module:function")."""
    path = directories.directory() / f"{name.replace(':', '.')}.o"
    try:
        return Object(path.read_bytes())
    except FileNotFoundError:
        data = _compile(name)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(data)
    partial.rename(path)
    return Object(data)


def _compile(name: str) -> bytes:
    import importlib

    from lbmux.targets.bpf.compiler import compile_object

    module, _, function = name.rpartition(":")
    return compile_object(getattr(importlib.import_module(module or "lbmux.targets.bpf.programs"), function), SECTION)
