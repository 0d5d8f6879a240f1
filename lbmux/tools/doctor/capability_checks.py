"""Check the capabilities of the daemon or, where no daemon runs, of the doctor itself."""

from collections.abc import Iterator
from pathlib import Path

from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import NodeState

PROC = Path("/proc")
NETWORK = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
KERNEL = {"CAP_PERFMON": 38, "CAP_BPF": 39}
"""Bit numbers from linux/capability.h.  The KERNEL ones are needed to load BPF programs."""
INSTEAD_OF_BPF = 21  # CAP_SYS_ADMIN
HINT = "start it as root, or grant them (AmbientCapabilities= in the unit that `lbmux unit` prints)"


def rights(node: NodeState) -> Iterator[Finding]:
    pid = node.pid
    effective = capabilities("self" if pid is None else str(pid))
    who = "this user" if pid is None else f"the daemon (process {pid})"
    network = [name for name, bit in NETWORK.items() if not effective >> bit & 1]
    kernel = [name for name, bit in KERNEL.items() if not effective >> bit & 1 and not effective >> INSTEAD_OF_BPF & 1]
    if network or (kernel and _has_programs(node)):
        yield fault("rights", f"{who} lacks {', '.join(network + kernel)}", HINT)
    elif kernel and pid is not None:
        yield warning("rights", f"{who} lacks {', '.join(kernel)}, so it cannot load kernel programs", HINT)
    else:
        yield ok("rights", f"{who} has {', '.join(NETWORK if kernel else [*NETWORK, *KERNEL])}")


def _has_programs(node: NodeState) -> bool:
    return node.runtime is not None and node.runtime.driver == "xdp"


def capabilities(process: str) -> int:
    """The effective capabilities of a process as a bit mask (CapEff in proc(5))."""
    status = (PROC / process / "status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), 16)
