"""Enter the daemon's network namespace, so that routes, interfaces and sysctls are those that the daemon sees."""

import ctypes
import os
from collections.abc import Iterator

from lbmux.tools.doctor.finding import Finding, fault, ok
from lbmux.tools.doctor.node_state import NodeState

CLONE_NEWNET = 0x40000000


def namespace(node: NodeState) -> Iterator[Finding]:
    """Enter the daemon's namespace for all later checks.  Report nothing if the doctor is already in it."""
    pid = node.pid
    if pid is None:
        return
    theirs = f"/proc/{pid}/ns/net"
    if os.stat(theirs).st_ino == os.stat("/proc/thread-self/ns/net").st_ino:
        return
    try:
        _enter(theirs)
    except PermissionError:
        yield fault(
            "namespace", f"the daemon (process {pid}) has another network namespace; the checks below are of this one",
            f"run it there, as root: nsenter -t {pid} -n lbmux doctor --control {node.control}",
        )  # fmt: skip
        return
    yield ok(
        "namespace", f"the daemon (process {pid}) runs in another network namespace: the checks below are of that one"
    )


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
