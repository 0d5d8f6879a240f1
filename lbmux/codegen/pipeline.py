"""The Numba pipeline that compiles a step.

A step has no closures, exceptions, ``with`` blocks, literal loops or parallel loops, so two thirds of Numba's passes
have nothing to do. Skipping them saves time and changes nothing. Skipping `IRLegalization` does change the program:
that pass clears each variable after its last use, which only reference-counted values need.
"""

import copy
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager
from numba.core.typed_passes import (
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

from lbmux.codegen.shortcuts import SHORTCUTS
from lbmux.codegen.step_library import StepLibrary, not_executable

STEP_PASSES = (
    TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA,
    NopythonTypeInference, PreLowerStripPhis, NativeLowering, NoPythonBackend,
)  # fmt: skip


class StepCompiler(CompilerBase):  # type: ignore[misc]
    """Numba's compiler with the passes that a step needs. It writes to a `StepLibrary`."""

    def __init__(self, typing: Any, target: Any, library: JITCodeLibrary | None, *rest: Any) -> None:
        super().__init__(typing, target, library or StepLibrary(target.codegen(), "step"), *rest)
        self.state.targetctx = copy.copy(self.state.targetctx)
        self.state.targetctx.get_executable = not_executable

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("step")
        for one in STEP_PASSES if SHORTCUTS else self._all_passes():
            passes.add_pass(one, one.__name__)
        passes.finalize()
        return [passes]

    def _all_passes(self) -> list[type]:
        builder = DefaultPassBuilder.define_nopython_pipeline(self.state)
        return [one for one, _ in builder.passes if one is not IRLegalization]
