"""The speaker watchdog: it runs a BGP speaker, and kills it when the mux's heartbeats stop.

    python speaker_watchdog.py SECONDS LONGER_SECONDS COMMAND...

Each byte on stdin is a heartbeat.  The next one is due within SECONDS; after PATIENT, which means that the kernel
program forwards, within LONGER_SECONDS; after OVERLOADED, within OVERLOADED_TIMES the usual time.  A mux that gets more
packets than it can forward is late, but not stuck, and its load would overload the next mux.

If the heartbeat does not arrive (the mux's packet loop or event loop has stalled, or the mux is stopped), or stdin
closes (the mux is dead), the watchdog kills the speaker: its connections close, and the routers withdraw its routes at
once.  If the watchdog is killed, the kernel kills the speaker.  Run as a file, it needs the standard library only.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

SILENT, ENDED = 3, 4
"""Exit codes: the heartbeats stopped; the speaker ended by itself."""
ALIVE, PATIENT, OVERLOADED = b".", b"p", b"o"
"""Heartbeats."""
OVERLOADED_TIMES = 5
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)  # loaded here, since a forked child should load nothing


def dies_with_parent() -> Callable[[], None]:
    """Return a preexec_fn for a child: the kernel kills the child when the thread that started it ends."""
    parent = os.getpid()

    def body() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent ended before prctl
            os._exit(1)

    return body


def keep(silence_s: float, longer_s: float, command: list[str]) -> int:
    """Run a speaker until it ends, heartbeats stop for ``silence_s``, or standard input ends; return the exit code.

    After a PATIENT heartbeat the next one may take ``longer_s``, after OVERLOADED OVERLOADED_TIMES ``silence_s``.
    """
    patience = {PATIENT: longer_s, OVERLOADED: OVERLOADED_TIMES * silence_s}
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
            patience_s = patience.get(signs[-1:], silence_s)
    finally:
        speaker.kill()
        speaker.wait()


if __name__ == "__main__":
    sys.exit(keep(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
