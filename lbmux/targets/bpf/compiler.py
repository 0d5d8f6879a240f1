"""The BPF compiler: turns a Python function into a BPF object with Numba and LLVM's BPF back end.

Numba compiles a step as for this machine; the context's type selects the kernel's primitives (lbmux.datapath.context).
The code that Numba adds for Python is dropped, everything is inlined into one function, and llvmlite, which Numba needs
anyway, emits the object. No other compiler is involved.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from lbmux.codegen.unoptimised import unoptimised_llvm

TRIPLE = "bpfel"
DATA_LAYOUT = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
PROCESSOR = "v3"
SIGNATURE = "int32(voidptr)"
ENTRY = "lbmux_program"
ENTRY_LLVM = """
define i32 @lbmux_program(ptr %context) section "{section}" {{
  %result = alloca i32
  %error = alloca ptr
  %status = call i32 {body}(ptr %result, ptr %error, ptr %context)
  %action = load i32, ptr %result
  ret i32 %action
}}
"""
"""Numba's functions store their result through a pointer and return a status. The kernel expects the result."""


@cache
def _prepare() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def compile_object(function: Callable[..., Any], section: str) -> bytes:
    """Compile ``function``, which takes the context and returns an action, into an object's ``section``."""
    _prepare()
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(cpu=PROCESSOR, opt=2)
    module = llvm.parse_assembly(_as_bpf(unoptimised_llvm(function, SIGNATURE), section))
    for defined in module.functions:
        if not defined.is_declaration and defined.name != ENTRY:
            defined.linkage = "internal"
            defined.add_function_attribute("alwaysinline")
    tuning = llvm.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_vectorization = tuning.slp_vectorization = False
    passes = llvm.create_pass_builder(machine, tuning)
    _inlined().run(module, passes)
    passes.getModulePassManager().run(module, passes)
    return bytes(machine.emit_object(module))


def _inlined() -> llvm.ModulePassManager:
    """Return the passes that inline everything into one function and combine its instructions, before all others.

    The verifier then processes a third fewer instructions than if each step is simplified separately.
    """
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_instruction_combine_pass()
    return passes


def _as_bpf(text: str, section: str) -> str:
    """Convert the module to the BPF target: helpers by number, and an entry with the kernel's calling convention."""
    body = re.search(r"define i32 (@\S+?)\(ptr noalias[^,]*%retptr", text)
    if body is None:
        raise ValueError("Numba's module has no function of the expected shape")
    text = re.sub(r"target triple = .*", f'target triple = "{TRIPLE}"', text)
    text = re.sub(r"target datalayout = .*", f'target datalayout = "{DATA_LAYOUT}"', text)
    text = re.sub(r"declare \S+ @bpf_helper_\d+\(.*\n", "", text)
    text = re.sub(r"@bpf_helper_(\d+)\b", r"inttoptr (i64 \1 to ptr)", text)
    return text + ENTRY_LLVM.format(section=section, body=body[1])
