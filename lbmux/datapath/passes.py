"""What Numba does with a step: the passes that steps need, a third of all.

A step has no closures, no exceptions, no ``with``, no loops over literals and no parallel loops, so the passes that
look for these find nothing in a hundred steps.  It has nothing whose references are counted either, so variables need
not be deleted where they end: without the pass that does so a program for the kernel is compiled a fifth faster.
"""

import copy
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.typed_passes import NativeLowering, NoPythonBackend, NopythonTypeInference, PreLowerStripPhis
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

from lbmux.datapath.step_library import StepLibrary, not_executable

PASSES = (
    TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA,
    NopythonTypeInference, PreLowerStripPhis, NativeLowering, NoPythonBackend,
)  # fmt: skip


class StepCompiler(CompilerBase):
    """Numba's compiler with those passes only."""

    def __init__(self, typing: Any, target: Any, library: JITCodeLibrary | None, *rest: Any) -> None:
        super().__init__(typing, target, library or StepLibrary(target.codegen(), "step"), *rest)
        self.state.targetctx = copy.copy(self.state.targetctx)
        self.state.targetctx.get_executable = not_executable

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("step")
        for one in PASSES:
            passes.add_pass(one, one.__name__)
        passes.finalize()
        return [passes]
