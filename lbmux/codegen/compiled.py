"""Decorators for functions that Numba compiles for this machine. Later processes load them from the cache.

The functions work on arrays that they are given and allocate none, so they need no reference counting (Numba's NRT).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lbmux.codegen import cache
from lbmux.codegen.function_cache import SealedFunctionCache

_cached: list[Any] = []
"""The compiled functions that the cache may have."""


def _compiled(**options: Any) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        dispatcher = njit(error_model="numpy", _nrt=False, **options)(function)
        if cache.directory() is not None:
            dispatcher._cache = SealedFunctionCache(function)
            _cached.append(dispatcher)
        return dispatcher

    return decorate


compiled = _compiled()
"""For functions that run for microseconds per batch: releasing the GIL would cost more than it gains."""
compiled_nogil = _compiled(nogil=True)
"""For functions that run for milliseconds: they release the GIL."""


def address_of(array: NDArray[Any]) -> np.uint64:
    """Return the address of an array's memory, as compiled functions take it. The caller keeps the array alive."""
    return np.uint64(array.ctypes.data)


def load_cached() -> None:
    """Load the cached machine code of all imported functions, so that forks of this process share it."""
    for dispatcher in _cached:
        for types in dispatcher._cache.argument_types(dispatcher.targetctx):
            dispatcher.compile(types)
