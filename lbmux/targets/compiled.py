"""Functions that Numba compiles for this machine, once: the next process finds them in the cache.

They work on arrays that they are given, and make none: so Numba's runtime, which counts references, is not needed.
"""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, UserProvidedCacheLocator

from lbmux.targets import cache, sealed

log = logging.getLogger(__name__)


class _Place(UserProvidedCacheLocator):
    """Our directory, which is there and checked."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        self._py_file, self._lineno = py_file, py_func.__code__.co_firstlineno

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Self:
        return cls(py_func, py_file)

    def get_cache_path(self) -> str:
        return str(cache.directory())

    def get_disambiguator(self) -> str:
        return f"{self._lineno}-{self.get_suitable_cache_subpath(self._py_file)}"

    def ensure_cache_path(self) -> None:
        """It is there, or writing says that it is not."""


class _Result(CompileResultCacheImpl):
    _locator_classes = [_Place]


class _Files(IndexDataCacheFile):
    """Numba's index and data, but sealed."""

    def _load_index(self) -> dict[Any, str]:
        data = sealed.read(Path(self._index_path))
        version, stamp, names = pickle.loads(data) if data is not None else (None, None, {})
        return names if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        sealed.write(Path(self._index_path), self._dump((self._version, self._source_stamp, overloads)))

    def _load_data(self, name: str) -> Any:
        data = sealed.read(Path(self._data_path(name)))
        return None if data is None else pickle.loads(data)

    def _save_data(self, name: str, data: Any) -> None:
        sealed.write(Path(self._data_path(name)), self._dump(data))


class _Kept(FunctionCache):
    _impl_class = _Result

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled before needs nothing of what a compiler knows: to load that takes a fifth of a second."""
        try:
            return self._load_overload(sig, target_context)
        except Exception as error:  # whatever is wrong with it: to compile it again mends it
            log.warning("%s: compiled code cannot be loaded: %r: compiling again", self._name, error)
            return None


def _compiled(**options: Any) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        made = njit(error_model="numpy", _nrt=False, **options)(function)
        if cache.directory() is not None:
            made._cache = _Kept(function)
        return made

    return decorate


compiled = _compiled()
"""For functions that a batch takes microseconds in: to let the interpreter go meanwhile would cost more."""
unlocked = _compiled(nogil=True)
"""For functions that take milliseconds: the interpreter goes on beside them."""
