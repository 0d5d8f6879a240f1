"""Functions that Numba compiles for this machine, once: the next process finds them in the cache.

They work on arrays that they are given, and make none: so Numba's runtime, which counts references, is not needed.
"""

from collections.abc import Callable
from typing import Any

from numba import njit

from lbmux.codegen import cache
from lbmux.codegen.function_cache import SealedFunctionCache


def _compiled(**options: Any) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        made = njit(error_model="numpy", _nrt=False, **options)(function)
        if cache.directory() is not None:
            made._cache = SealedFunctionCache(function)
        return made

    return decorate


compiled = _compiled()
"""For functions that a batch takes microseconds in: to let the interpreter go meanwhile would cost more."""
compiled_nogil = _compiled(nogil=True)
"""For functions that take milliseconds: the interpreter goes on beside them."""
