"""A function's LLVM as Numba generates it, before any optimisation: the input of the BPF back end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from numba import cfunc
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen

from lbmux.codegen.pipeline import StepCompiler
from lbmux.codegen.shortcuts import fast_typing
from lbmux.codegen.step_library import callees


def unoptimised_llvm(function: Callable[..., Any], signature: str) -> str:
    """Return the module of ``function`` and of every step that it calls, as LLVM assembly.

    LLVM's passes run once, later, for the BPF target.
    """
    with _no_machine_code(), fast_typing():
        native = cfunc(signature, error_model="numpy", pipeline_class=StepCompiler, _nrt=False)(function)._library
        module = native._final_module
        for library in callees(native):
            module.link_in(library._final_module)
        return str(module)


@contextmanager
def _no_machine_code() -> Iterator[None]:
    """Keep Numba from optimising, linking and emitting the function for this machine."""

    def finalize(library: JITCodeLibrary) -> None:
        library._finalized = True

    with (
        patch.object(JITCodeLibrary, "finalize", finalize),
        patch.object(JITCodeLibrary, "_optimize_functions", lambda library, module: None),
        patch.object(JITCodeLibrary, "get_pointer_to_function", lambda library, name: 0),
        patch.object(JITCPUCodegen, "set_env", lambda codegen, name, environment: None),
    ):
        yield
