"""What Numba does with a step: the passes that steps need, a third of all, and no code for itself.

A step has no closures, no exceptions, no ``with``, no loops over literals and no parallel loops, so the passes that
look for these find nothing in a hundred steps: leaving them out compiles a program for the kernel a fifth faster.
And a step is only ever inlined: to optimise it with all that it calls, and to emit code of it that nobody runs, would
take as long as all the rest.
"""

import copy
from typing import Any

from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.typed_passes import (
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

PASSES = (
    TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA,
    NopythonTypeInference, PreLowerStripPhis, IRLegalization, NativeLowering, NoPythonBackend,
)  # fmt: skip


class StepLibrary(JITCodeLibrary):
    """A step in LLVM's words, as Numba wrote them: whoever calls it has it optimised with its own."""

    _final_module: Any
    _shared_module: Any

    def finalize(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    def _optimize_functions(self, module: Any) -> None:
        pass

    def _get_module_for_linking(self) -> Any:
        """With all that it calls."""
        if self._shared_module is None:
            alone, self._final_module = self._final_module, self._final_module.clone()
            for other in needed(self):
                is_step = isinstance(other, StepLibrary)
                module = other._final_module if is_step else other._get_module_for_linking()
                self._final_module.link_in(module, preserve=True)
            super()._get_module_for_linking()
            self._final_module = alone
        return self._shared_module


def needed(library: JITCodeLibrary, found: dict[JITCodeLibrary, None] | None = None) -> dict[JITCodeLibrary, None]:
    """All that ``library`` calls, in the order in which it was compiled."""
    found = {} if found is None else found
    for other in library._linking_libraries:
        if other not in found:
            found[other] = None
            needed(other, found)
    return found


def _not_executable(library: JITCodeLibrary, description: Any, environment: Any) -> Any:
    name, module = description.qualname, description.lookup_module()
    return _dynfunc.make_function(module, name, "a step", 0, environment, (library,))


class StepCompiler(CompilerBase):
    """Numba's compiler with those passes only."""

    def __init__(self, typing: Any, target: Any, library: JITCodeLibrary | None, *rest: Any) -> None:
        super().__init__(typing, target, library or StepLibrary(target.codegen(), "step"), *rest)
        self.state.targetctx = copy.copy(self.state.targetctx)
        self.state.targetctx.get_executable = _not_executable

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("step")
        for one in PASSES:
            passes.add_pass(one, one.__name__)
        passes.finalize()
        return [passes]
