"""Enter the daemon's network namespace, so that routes, interfaces and sysctls are those that the daemon sees."""

import os
from collections.abc import Iterator

from lbmux.linux.network_namespaces import enter
from lbmux.tools.doctor.finding import Finding, fault, ok
from lbmux.tools.doctor.node_state import NodeState


def namespace(node: NodeState) -> Iterator[Finding]:
    """Enter the daemon's namespace for all later checks.  Report nothing if the doctor is already in it."""
    pid = node.pid
    if pid is None:
        return
    theirs = f"/proc/{pid}/ns/net"
    if os.stat(theirs).st_ino == os.stat("/proc/thread-self/ns/net").st_ino:
        return
    try:
        enter(theirs)
    except PermissionError:
        yield fault(
            "namespace", f"the daemon (process {pid}) has another network namespace; the checks below are of this one",
            f"run it there, as root: nsenter -t {pid} -n lbmux doctor --control {node.control}",
        )  # fmt: skip
        return
    yield ok(
        "namespace", f"the daemon (process {pid}) runs in another network namespace: the checks below are of that one"
    )
