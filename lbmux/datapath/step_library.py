"""Where Numba puts a step: in LLVM's words, and no code for itself.

A step is only ever inlined: to optimise it with all that it calls, and to emit code of it that nobody runs, would
take as long as all the rest.
"""

from typing import Any

from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary


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


def not_executable(library: JITCodeLibrary, description: Any, environment: Any) -> Any:
    """What stands for a step's code, which is never called."""
    name, module = description.qualname, description.lookup_module()
    return _dynfunc.make_function(module, name, "a step", 0, environment, (library,))
