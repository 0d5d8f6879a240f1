"""Where the doctor stands: routes, interfaces and settings are those of one network namespace, the daemon's."""

import ctypes
import os
from collections.abc import Iterator

from lbmux.tools.doctor.finding import Finding, fault, ok
from lbmux.tools.doctor.node_state import NodeState

CLONE_NEWNET = 0x40000000


def namespace(node: NodeState) -> Iterator[Finding]:
    """Go where the daemon is, for all checks that follow; nothing is said where we are there already."""
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
            "namespace", f"the daemon (process {pid}) has another network namespace; what follows is of this one",
            f"run it there, as root: nsenter -t {pid} -n lbmux doctor --control {node.control}",
        )  # fmt: skip
        return
    yield ok("namespace", f"the daemon (process {pid}) has another network namespace: looked at from there")


def _enter(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
