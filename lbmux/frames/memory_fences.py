"""Memory fences for rings that are shared with the kernel: native code only.

A frame's status word says who owns the frame. The frame may be read only after the status, and returned only after the
last write. On x86 both fences are free; they only constrain the compiler.
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
"""``acquire`` follows the read of the status, ``release`` precedes its write."""
