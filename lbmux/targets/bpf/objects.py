"""Compiled kernel programs by name, from the cache if possible.

This module does not import Numba, so a process that finds its programs in the cache does not wait for that import.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lbmux.codegen import cache as directories
from lbmux.codegen import sealed
from lbmux.codegen.progress import compiling
from lbmux.errors import LbmuxError
from lbmux.targets.bpf.elf import Object

SECTION = "lbmux"
PROGRAMS = "lbmux.targets.bpf.xdp_programs"
COMPILE = """
import gc, importlib, os, sys
gc.disable()
from lbmux.targets.bpf.compiler import compile_object
function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
sys.stdout.buffer.write(compile_object(function, sys.argv[3]))
sys.stdout.flush()
os._exit(0)
"""
"""The code that the compiler process runs. os._exit skips the clean-up, which would take a seventh of its time."""


class CompileError(LbmuxError):
    """The compiler's process failed; ``output`` is what it wrote to stdout and stderr."""

    function: str
    output: str

    def __str__(self) -> str:
        last = self.output.strip().rpartition("\n")[2]
        return f"{self.function} cannot be compiled for the kernel: {last}"


@cache
def compiled(name: str) -> Object:
    """Return the object of "module:function", or of a function of lbmux.targets.bpf.xdp_programs.

    Raise CompileError if it cannot be compiled.
    """
    module, _, function = name.rpartition(":")
    directory = directories.directory()
    if directory is None:
        return Object(_compile(module or PROGRAMS, function))
    path = directory / f"{function}{_digest(module)}.o"
    data = sealed.read(path)
    if data is None:
        data = _compile(module or PROGRAMS, function)
        sealed.write(path, data)
    return Object(data)


def prepare(names: Iterable[str]) -> None:
    """Compile several programs in parallel."""
    wanted = list(names)
    with ThreadPoolExecutor(len(wanted)) as pool:
        list(pool.map(compiled, wanted))


def _digest(module: str) -> str:
    """Return a digest of a module's source: the cache directory's name covers only this package."""
    spec = find_spec(module) if module else None
    return f"-{hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]}" if spec and spec.origin else ""


def _compile(module: str, function: str) -> bytes:
    """Compile in a separate process. Numba would reuse what this process has compiled natively and produce another
    program, which may be too large for the verifier."""
    command = [sys.executable, "-c", COMPILE, module, function, SECTION]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with compiling(f"{function} for the kernel"):
        ran = subprocess.run(command, capture_output=True, env=environment, check=False)
    if ran.returncode:
        raise CompileError(function, ran.stderr.decode(errors="replace"))
    return ran.stdout
