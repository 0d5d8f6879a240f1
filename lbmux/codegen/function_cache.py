"""Numba's on-disk cache of compiled functions, as sealed files in lbmux's own directory.

Numba's own cache loads any file it finds. It also refreshes all its registries first (0.2 s), which only its compiler
needs.
"""

import logging
import pickle
from pathlib import Path
from typing import Any, ClassVar, Self

from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, UserProvidedCacheLocator

from lbmux.codegen import cache, progress, sealed

log = logging.getLogger(__name__)


class _CacheLocator(UserProvidedCacheLocator):  # type: ignore[misc]
    """Locates lbmux's own directory, which `cache` has created and checked."""

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
        """Do nothing: `cache` created it, and a failed write is logged."""


class _Result(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes: ClassVar[list[type]] = [_CacheLocator]


class _Files(IndexDataCacheFile):  # type: ignore[misc]
    """Numba's index and data files, sealed."""

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


class SealedFunctionCache(FunctionCache):  # type: ignore[misc]
    """The cached machine code of one function, by argument types."""

    _impl_class = _Result

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._label = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code for these argument types, or None. Skip the registries, which only a compiler needs."""
        try:
            overload = self._load_overload(sig, target_context)
        except Exception as error:  # recompiling repairs any damage
            log.warning("%s: cannot load compiled code, recompiling: %r", self._name, error)
            overload = None
        if overload is None:
            progress.begin(self._label)
        return overload

    def argument_types(self, target_context: Any) -> list[Any]:
        """Return the argument types for which the cache has code for this machine."""
        keys = self._cache_file._load_index()
        return [types for types, *_ in keys if self._index_key(types, target_context.codegen()) in keys]

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save new code. Numba calls this when compilation has finished."""
        progress.end(self._label)
        super().save_overload(sig, data)
