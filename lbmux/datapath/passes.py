"""What Numba does with a step: the passes that steps need, a third of all.

A step has no closures, no exceptions, no ``with``, no loops over literals and no parallel loops, so the passes that
look for these find nothing in a hundred steps: leaving them out compiles a program for the kernel a fifth faster.
"""

from typing import Any

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


class StepCompiler(CompilerBase):
    """Numba's compiler with those passes only."""

    def define_pipelines(self) -> list[Any]:
        passes = PassManager("step")
        for one in PASSES:
            passes.add_pass(one, one.__name__)
        passes.finalize()
        return [passes]
