"""Compile what the daemons run, once, before the tests: `python -m tests.warm_cache`.

Each core compiles one program at a time. That takes half a minute on two idle cores, and minutes on a busy machine.
Tests give a daemon 30 s to start, which is generous when the cache is warm.  `make test` runs this module first; the
fixtures of tests that start daemons call `warm` too, which returns at once when another process has done the work.
"""

import fcntl
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from lbmux.codegen import cache
from lbmux.frames.tap_reader import PROGRAMS
from lbmux.frames.xdp import GATE
from lbmux.lab.topology import ananta
from lbmux.targets.bpf import kernel_clock, objects
from tests.daemons.running_daemons import READY, configuration, service, started
from tests.labs import built

LONGEST_S = 900.0
FORWARDING = ("mux_xdp", "agent_xdp", "agent_tc")
EDGE = ("edge_mux_xdp", "edge_agent_xdp")
KERNEL_PROGRAMS = (*FORWARDING, *EDGE, GATE, kernel_clock.PROGRAM, *(PROGRAMS + name for name in FORWARDING))
BACKENDS = [{"name": "h1", "dip": "10.1.1.2", "port": 8080}]


def warm(say: Callable[[str], None]) -> None:
    """Fill the cache unless it is full; ``say`` gets a line after each step."""
    directory = cache.directory()
    if directory is None:
        say("no cache directory: every daemon compiles everything")
        return
    done = directory / "warmed-by-tests"
    with (directory / "warmed-by-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [
                pool.submit(step, say, f"kernel program {name}", objects.compiled, name) for name in KERNEL_PROGRAMS
            ]
            if os.geteuid() == 0:
                jobs.insert(0, pool.submit(step, say, "native code: one mux and one agent in a lab", start_daemons))
            for job in jobs:
                job.result()
        done.touch()


def start_daemons() -> None:
    """A mux and an agent compile the rest before they are ready."""
    with built(ananta(), f"w{os.getpid()}", programs=False) as lab, ExitStack() as stack:
        lab.write_config(configuration(service("web", 80, BACKENDS)))
        nodes = {"mux": "mux1", "agent": "host1"}
        daemons = [stack.enter_context(started(lab, node, program)) for program, node in nodes.items()]
        for daemon in daemons:
            daemon.wait_for(READY[daemon.program], LONGEST_S)


def step(say: Callable[[str], None], what: str, work: Callable[..., object], *arguments: object) -> None:
    begun = time.monotonic()
    work(*arguments)
    say(f"compiled {what} in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    warm(lambda line: print(line, flush=True))
