"""Kernel programs as they are on a machine that may execute loads in another order, such as arm64.

Only the compiler's process imports this module: it changes how everything after it is compiled.
"""

from lbmux.datapath import atomics
from lbmux.targets.bpf.xdp_programs import mux_xdp
from tests.targets.bpf.flow_race import race

__all__ = ["mux_xdp", "race"]
atomics.LOADS_ARE_ORDERED = False
