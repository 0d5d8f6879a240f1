"""The order in which memory shared with the kernel is read and written: native code only.

A ring's frame belongs to whoever its status word says.  What the status guards may be read only after it, and it
may be given back only after the last write.  Both cost nothing on x86, where they only bind the compiler.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic


def _fence(ordering: str) -> Any:
    @intrinsic
    def fence(typing: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.fence(ordering)
            return lowering.get_dummy_value()

        return types.void(), lower

    return fence


acquire, release = _fence("acquire"), _fence("release")
"""After the status is read; before it is written."""
