"""Shortcuts save compile time only: every kernel program has the same instructions without them."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lbmux.targets.bpf import objects, tapped_programs, xdp_programs
from lbmux.targets.bpf.elf import Object
from lbmux.targets.bpf.objects import compiled

ROOT = Path(__file__).parents[2]
COMPILE = """
import gc, importlib, os, sys
gc.disable()  # a compilation makes no garbage to speak of, and ends its process
from lbmux.targets.bpf.compiler import compile_object
module, function, section = sys.argv[1:]
sys.stdout.buffer.write(compile_object(getattr(importlib.import_module(module), function), section))
sys.stdout.flush()
os._exit(0)
"""


def _entry_points(module: ModuleType) -> list[str]:
    """Functions that the kernel calls: plain Python with one parameter, the context."""
    functions = inspect.getmembers(module, inspect.isfunction)
    own = [(name, value) for name, value in functions if value.__module__ == module.__name__]
    return [f"{module.__name__}:{name}" for name, value in own if [*inspect.signature(value).parameters] == ["ctx"]]


VARIANTS = [*_entry_points(xdp_programs), *_entry_points(tapped_programs)]


def _code(data: bytes) -> tuple[bytes, list[tuple[int, str]]]:
    program = Object(data)
    return program.section(objects.SECTION), program.relocations(objects.SECTION)


def test_every_program_is_a_variant() -> None:
    traced = ["mux_xdp", "agent_xdp", "agent_tc", "edge_mux_xdp", "edge_agent_xdp"]
    assert sorted(name.rpartition(":")[2] for name in VARIANTS) == sorted([*traced, *traced, "clock_xdp", "gate_xdp"])


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_instructions_are_the_same_without_them(variant: str) -> None:
    module, _, function = variant.rpartition(":")
    environment = os.environ | {"LBMUX_CODEGEN_SHORTCUTS": "off", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COMPILE, module, function, objects.SECTION]
    slow = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True).stdout
    assert _code(slow) == _code(compiled(variant).data)
