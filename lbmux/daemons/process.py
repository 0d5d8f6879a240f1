"""What mux and agent have in common as processes: the event loop, signals, readiness, the way to start."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lbmux.codegen import progress

THREADS, NICE = 4, 15
SWITCH_INTERVAL_S = 0.0002
"""How long a busy Python thread (a configuration being read) may keep the interpreter from the packet loop."""


def run(program: Coroutine[Any, Any, None]) -> None:
    """Run a program to its end, on uvloop where it is installed."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    progress.announce()
    _may_open_many()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.get_loop().set_default_executor(ThreadPoolExecutor(THREADS, initializer=_step_back))
        runner.run(program)


def _may_open_many() -> None:
    """A probe of each backend may be under way at a time; the usual limit of 1024 descriptors is for select(2)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _step_back() -> None:
    """Of a thread beside the event loop: where both want the same core, packets come first."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def stop_event(*, on_reload: Any = None, at_once: asyncio.Event | None = None) -> asyncio.Event:
    """Set by SIGTERM and SIGINT; SIGHUP calls ``on_reload``.  ``at_once``: set by SIGINT, and by a second signal."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def asked(number: signal.Signals) -> None:
        if at_once is not None and (stop.is_set() or number == signal.SIGINT):
            at_once.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    if on_reload is not None:
        loop.add_signal_handler(signal.SIGHUP, on_reload)
    return stop


def ready() -> None:
    """Say that we are ready; what is in memory by now stays, so the collector need not walk it.

    Numba's heap alone takes it 60 ms, and it would hold packets up for so long with every larger reload.  So it is not
    walked now either: what a start leaves behind is collected on the way, but for some hundred objects.
    """
    gc.collect(1)
    gc.freeze()
    notify("READY=1")


def notify(state: str) -> None:
    """Tell the service manager (sd_notify(3)), if there is one; ``@`` names an abstract socket."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.sendto(state.encode(), address)
