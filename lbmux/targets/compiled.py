"""Functions that Numba compiles for this machine, once: the next process finds them in the cache.

They work on arrays that they are given, and make none: so Numba's runtime, which counts references, is not needed.
"""

from collections.abc import Callable
from typing import Any

import numba
from numba import njit
from numba.core.caching import FunctionCache

from lbmux.targets import cache

numba.config.CACHE_DIR = str(cache.directory())


class _Found(FunctionCache):
    """What was compiled before needs nothing of what a compiler knows: to load that takes a fifth of a second."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        return self._load_overload(sig, target_context)


def _compiled(**options: Any) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        made = njit(error_model="numpy", _nrt=False, **options)(function)
        made._cache = _Found(function)
        return made

    return decorate


compiled = _compiled()
"""For functions that a batch takes microseconds in: to let the interpreter go meanwhile would cost more."""
unlocked = _compiled(nogil=True)
"""For functions that take milliseconds: the interpreter goes on beside them."""
