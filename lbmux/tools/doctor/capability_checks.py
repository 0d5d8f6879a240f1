"""Check the capabilities of the daemon or, where no daemon runs, of the doctor itself."""

from collections.abc import Iterator

from lbmux.daemons.rights import NEEDS, PROGRAMS
from lbmux.linux.capabilities import Capability, effective, lacking
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import NodeState

ALL = NEEDS["mux"]
HINT = "start it as root, or grant them (AmbientCapabilities= in the unit that `lbmux unit` prints)"


def rights(node: NodeState) -> Iterator[Finding]:
    """Report the capabilities that the daemon, or this user without a daemon, lacks for the node's role."""
    pid = node.pid
    needs = NEEDS.get(node.role, ALL)
    if not needs:
        yield ok("rights", f"the role {node.role} needs no capabilities")
        return
    missing = lacking(needs, effective("self" if pid is None else str(pid)))
    subject = "this user" if pid is None else f"the daemon (process {pid})"
    text = f"{subject} lacks {', '.join(f'{one} {needs[one]}' for one in missing)}"
    kernel_only = all(one in PROGRAMS for one in missing)
    if missing and (not kernel_only or _has_programs(node)):
        yield fault("rights", text, HINT)
    elif missing and pid is not None:
        yield warning("rights", f"{text}; it forwards in user space", HINT)
    else:
        yield ok("rights", f"{subject} has {_names([one for one in needs if one not in missing])}")


def _has_programs(node: NodeState) -> bool:
    return node.runtime is not None and node.runtime.driver == "xdp"


def _names(capabilities: list[Capability]) -> str:
    return ", ".join(map(str, capabilities))
