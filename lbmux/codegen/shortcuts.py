"""Patches of Numba that save compile time and change nothing else.

``LBMUX_CODEGEN_SHORTCUTS=off`` disables them all; a test compiles every kernel program both ways and compares the
instructions.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from numba.core import event
from numba.core.types.functions import BaseFunction
from numba.core.typing.npydecl import NumpyRulesArrayOperator

SHORTCUTS = os.environ.get("LBMUX_CODEGEN_SHORTCUTS", "on") != "off"


@contextlib.contextmanager
def fast_typing() -> Iterator[None]:
    """Skip type inference work that steps never need.

    Numba tries each sum as an array sum first, sends events that no listener receives, and searches all its
    registries again for every sum of two known types.
    """
    if not SHORTCUTS:
        yield
        return
    with (
        patch.object(NumpyRulesArrayOperator, "generic", _nothing),
        patch.object(BaseFunction, "get_call_type", _memoised(BaseFunction.get_call_type)),
        patch.object(event, "start_event", _nothing),
        patch.object(event, "end_event", _nothing),
    ):
        yield


def _nothing(*_: object, **__: object) -> None:
    pass


def _memoised(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """Memoise ``BaseFunction.get_call_type``: a function's signature depends on the argument types alone."""
    known: dict[Any, tuple[Any, Any]] = {}

    def get_call_type(function: Any, context: Any, arguments: Any, named: Any) -> Any:
        key = function.key, tuple(arguments), tuple(named.items())
        if key not in known:
            signature = resolve(function, context, arguments, named)
            known[key] = signature, function._impl_keys[signature.args]
        signature, implementation = known[key]
        function._impl_keys[signature.args] = implementation
        return signature

    return get_call_type
