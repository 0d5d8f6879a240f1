"""Capabilities (capabilities(7)): reads those of a process, and drops all but some in a child.

    python capabilities.py NAME,... COMMAND...

Run as a file, it drops its own and becomes a command.  So a process with threads starts a child that runs nothing
between fork(2) and execve(2): a lock of another thread would stay locked there.  It needs the standard library only.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Collection, Sequence
from enum import IntEnum
from pathlib import Path

PROC = Path("/proc")
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 38, 47
AMBIENT_RAISE, AMBIENT_CLEAR_ALL = 2, 4
VERSION_3 = 0x20080522
WORDS = 2
"""Version 3 of capset(2) has two sets of 32-bit words: effective, permitted, inheritable."""
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here, since a forked child should load nothing


class Capability(IntEnum):
    """The capabilities that some part of lbmux needs, with their bit numbers from linux/capability.h."""

    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_ADMIN = 21
    PERFMON = 38
    BPF = 39

    def __str__(self) -> str:
        return f"CAP_{self.name}"


def effective(process: str = "thread-self") -> int:
    """Return the effective capabilities of a process as a bit mask (CapEff in proc(5))."""
    return _mask(process, "CapEff")


def lacking(wanted: Collection[Capability], mask: int) -> list[Capability]:
    """Return the ``wanted`` capabilities that the bit mask lacks. CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON."""
    if mask >> Capability.SYS_ADMIN & 1:
        mask |= 1 << Capability.BPF | 1 << Capability.PERFMON
    return [one for one in wanted if not mask >> one & 1]


def with_only(keep: Collection[Capability] = ()) -> Callable[[], None]:
    """Return a preexec_fn for a child that keeps at most these capabilities and cannot gain others.

    With no_new_privs, neither root's user id nor set-user-ID programs nor file capabilities restore any.
    """
    kept = _mask("thread-self", "CapPrm") & sum(1 << one for one in keep)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = (ctypes.c_uint32 * 2)(VERSION_3, 0)  # 0: the calling thread
    data = (ctypes.c_uint32 * (3 * WORDS))(low, low, low, high, high, high)

    def body() -> None:
        _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _libc.prctl(PR_CAP_AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0)
        if _libc.capset(header, data) != 0:
            raise OSError(ctypes.get_errno(), "capset")
        for one in keep:
            if kept >> one & 1:
                _libc.prctl(PR_CAP_AMBIENT, AMBIENT_RAISE, int(one), 0, 0)

    return body


def _mask(process: str, field: str) -> int:
    status = (PROC / process / "status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:")), 16)


def command_with_only(keep: Collection[Capability], command: Sequence[str]) -> list[str]:
    """Return a command that drops all capabilities but ``keep``, as ``with_only`` does, and becomes ``command``."""
    names = ",".join(one.name for one in keep)
    return [sys.executable, "-I", "-S", __file__, names, *command]


def main() -> None:
    names, *command = sys.argv[1:]
    with_only([Capability[name] for name in names.split(",") if name])()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
