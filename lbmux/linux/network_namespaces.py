"""Network namespaces of this machine: list them, and work in one (namespaces(7), setns(2))."""

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

CLONE_NEWNET = 0x40000000
NAMED, PROCESSES = "/run/netns", "/proc"
"""The directories of `ip netns` and of processes."""
OURS = "/proc/thread-self/ns/net"
Result = TypeVar("Result")
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here, since a child forked from a thread should not load libraries


def enter(path: str) -> None:
    """Move the calling thread into a namespace permanently. Raise OSError if that is not possible."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def inside(path: str, work: Callable[[], Result]) -> Result:
    """Call ``work`` in a namespace, in a temporary thread, and return its result."""
    outcome: list[Any] = []

    def body() -> None:
        try:
            enter(path)
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def others() -> dict[int, str]:
    """Return a path by inode to each network namespace that the caller may read, except its own."""
    paths, ours = dict[int, str](), os.stat(OURS).st_ino
    for path in _paths():
        with contextlib.suppress(OSError):  # its process has ended, or belongs to another user
            paths.setdefault(os.stat(path).st_ino, path)
    paths.pop(ours, None)
    return paths


def _paths() -> Iterator[str]:
    for directory, below in ((NAMED, ""), (PROCESSES, "/ns/net")):
        with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
            yield from (entry.path + below for entry in entries if not below or entry.name.isdigit())
