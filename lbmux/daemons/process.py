"""A daemon as a process: event loop, signals, readiness."""

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
"""Threads beside the event loop, and their priority."""
SWITCH_INTERVAL_S = 0.0002
"""How long a busy Python thread (one that reads a configuration) may hold the interpreter before the packet loop."""
FREQUENT = (700, 10, 10)
"""Thresholds of the garbage collector while a daemon forwards: new objects, then collections of younger generations."""


def run(program: Coroutine[Any, Any, None]) -> None:
    """Run a program until it ends, on uvloop where it is installed."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    progress.announce()
    _raise_descriptor_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.get_loop().set_default_executor(ThreadPoolExecutor(THREADS, initializer=_lower_priority))
        runner.run(program)


def _raise_descriptor_limit() -> None:
    """Raise the limit of descriptors: every backend may be probed at the same time.

    The default of 1024 exists for programs that use select(2).
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _lower_priority() -> None:
    """Give packets precedence where a thread and the event loop compete for a core."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def stop_event(*, on_reload: Any = None, at_once: asyncio.Event | None = None) -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; SIGHUP calls ``on_reload``. SIGINT or a
    second signal also sets ``at_once``.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if at_once is not None and (stop.is_set() or number == signal.SIGINT):
            at_once.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    if on_reload is not None:
        loop.add_signal_handler(signal.SIGHUP, on_reload)
    return stop


def ready() -> None:
    """Tell the service manager that the daemon is ready, and exempt everything in memory from garbage collection.

    Walking Numba's heap takes 60 ms, and every larger reload would stop packets for that time.  For the same reason
    there is no collection here: a start leaves only some hundred objects behind.  From now on few new objects start a
    collection (Python's default), so that each one is short.
    """
    gc.freeze()
    gc.set_threshold(*FREQUENT)
    notify("READY=1")


def notify(state: str) -> None:
    """Send a state to the service manager, if there is one (sd_notify(3)); ``@`` starts an abstract socket's name."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.sendto(state.encode(), address)
