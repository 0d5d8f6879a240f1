"""The tail call with which an edge's mux program hands a frame over to the agent's program.

An interface has one XDP program. On an edge that is the mux's, and the agent's is behind it, in a program slot.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lbmux.datapath.context import helper
from lbmux.datapath.memory import i8, i64
from lbmux.targets.bpf.maps import AGENT_SLOT

HELPER_TAIL_CALL = 12


@intrinsic
def to_agent(typing: Any, context: Any) -> Any:
    """Continue in the agent's program. Return only if there is none."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        module = builder.module
        slot = module.globals.get(AGENT_SLOT) or ir.GlobalVariable(module, i8, AGENT_SLOT)
        helper(builder, HELPER_TAIL_CALL, i64, args[0], slot, ir.Constant(i64, 0))
        return lowering.get_dummy_value()

    return types.void(context), lower
