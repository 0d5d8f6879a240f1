"""The library that holds a compiled step: its unoptimised LLVM, without machine code.

Callers inline every step. Optimising each step separately and emitting code that nothing calls would take as long as
all other work, and would leave the kernel's verifier more to check.
"""

from typing import Any

from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary


class StepLibrary(JITCodeLibrary):  # type: ignore[misc]
    """The LLVM of one step. The caller optimises it together with its own code."""

    _final_module: Any
    _shared_module: Any

    def finalize(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    def _optimize_functions(self, module: Any) -> None:
        pass

    def _get_module_for_linking(self) -> Any:
        """Return the step's module, linked with everything that it calls."""
        if self._shared_module is None:
            alone, self._final_module = self._final_module, self._final_module.clone()
            for other in callees(self):
                is_step = isinstance(other, StepLibrary)
                module = other._final_module if is_step else other._get_module_for_linking()
                self._final_module.link_in(module, preserve=True)
            super()._get_module_for_linking()
            self._final_module = alone
        return self._shared_module


def callees(library: JITCodeLibrary, libraries: dict[JITCodeLibrary, None] | None = None) -> dict[JITCodeLibrary, None]:
    """Return every library that ``library`` calls, directly or indirectly, in compilation order."""
    libraries = {} if libraries is None else libraries
    for other in library._linking_libraries:
        if other not in libraries:
            libraries[other] = None
            callees(other, libraries)
    return libraries


def not_executable(library: JITCodeLibrary, description: Any, environment: Any) -> Any:
    """Return a placeholder for a step's machine code, which nothing calls."""
    name, module = description.qualname, description.lookup_module()
    return _dynfunc.make_function(module, name, "a step", 0, environment, (library,))
