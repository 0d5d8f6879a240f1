"""Keeps a BGP speaker alive only as long as the mux gives signs of life: a process between the two.

    python speaker_watchdog.py SECONDS LONGER_SECONDS COMMAND...

Every byte on stdin is a sign of life.  The last one says how long the next may take: SECONDS, or after PATIENT
LONGER_SECONDS, since the kernel's program forwards meanwhile.  If none comes in that time (the mux's packet loop or
event loop is stuck, or the mux is stopped), or stdin ends (the mux is dead), the speaker is killed: its connections
close, and the routers withdraw at once what came by them.  If this process is killed, the kernel kills the speaker.
Run as a file, it needs the standard library only.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

SILENT, ENDED = 3, 4
"""Exit codes: no sign of life from the mux; the speaker ended by itself."""
ALIVE, PATIENT = b".", b"p"
"""Signs of life."""
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # here: a child that was just forked should load nothing


def dies_with_parent() -> Callable[[], None]:
    """For a child to run before exec: the kernel kills it when the thread that started it ends."""
    parent = os.getpid()

    def body() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before we had said so
            os._exit(1)

    return body


def keep(silence_s: float, longer_s: float, command: list[str]) -> int:
    speaker = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=dies_with_parent())
    descriptor, patience_s = os.pidfd_open(speaker.pid), silence_s
    try:
        while True:
            readable = select.select([0, descriptor], [], [], patience_s)[0]
            if descriptor in readable:
                return ENDED
            if not readable:
                return SILENT
            if not (signs := os.read(0, 4096)):
                return 0
            patience_s = longer_s if signs[-1:] == PATIENT else silence_s
    finally:
        speaker.kill()
        speaker.wait()


if __name__ == "__main__":
    sys.exit(keep(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
