"""Tail calls: a program hands a frame over to the one in a program slot.

An interface has one XDP program. On an edge it is the mux's, and the agent's is behind it. While a mux is overloaded
it is the gate's (lbmux.datapath.gate), and the mux's is behind that.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lbmux.datapath.context import helper
from lbmux.datapath.memory import i8, i64
from lbmux.targets.bpf.maps import AGENT_SLOT, MUX_SLOT

HELPER_TAIL_CALL = 12


def _to(symbol: str) -> Any:
    @intrinsic
    def call(typing: Any, context: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            module = builder.module
            slot = module.globals.get(symbol) or ir.GlobalVariable(module, i8, symbol)
            helper(builder, HELPER_TAIL_CALL, i64, args[0], slot, ir.Constant(i64, 0))
            return lowering.get_dummy_value()

        return types.void(context), lower

    return call


to_agent, to_mux = _to(AGENT_SLOT), _to(MUX_SLOT)
"""Continue in the program of that slot. Return only if there is none."""
