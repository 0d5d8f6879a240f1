"""A lab: it builds a topology, records it in a state file, and removes all of it.

The state file names every namespace and process before it is used. An interrupted lab can therefore be removed too, and
nothing else is ever removed.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import yaml

from lbmux.codegen import cache
from lbmux.errors import LabError
from lbmux.frames.xdp import detach
from lbmux.lab import fork_server, namespaces, processes, topology_builder, topology_file
from lbmux.lab.altered_program import unmount_below
from lbmux.lab.fork_server import ForkedProcess
from lbmux.lab.processes import Process
from lbmux.lab.topology import Node, Program, Topology

ROOT = Path("/run/lbmux/lab")
DEFAULT_NAME = "lbmux"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""A lab's name.  It is part of a path that ``down`` removes recursively, so it cannot contain slashes."""
Result = TypeVar("Result")


class Lab:
    """A lab by name.  ``up`` builds ``topology``.  Other processes may build and remove it too."""

    def __init__(self, topology: Topology, name: str = DEFAULT_NAME, driver: str = "auto") -> None:
        """``driver`` of muxes and agents: auto, packet (tun for agents) or xdp.  Raise LabError for an invalid name."""
        if not NAME.fullmatch(name):
            raise LabError(
                "",
                f"{name!r} is not a valid lab name: use letters, digits, - _ and ., and begin with a letter or digit",
            )
        self.topology = topology
        self.driver = driver
        self.name = name
        self.directory = ROOT / name
        self.config = self.directory / "services.yaml"
        self.config_in_force = topology.config
        self.processes: list[Process] = []
        self._made: list[str] = []
        self._complete = False
        self._recorded: tuple[Topology, str] | None = None
        self._recording = threading.Lock()
        self._read_state()

    @classmethod
    def existing(cls, name: str, otherwise: Topology) -> "Lab":
        """Return the lab of that name with its recorded topology, or with ``otherwise`` if it does not exist."""
        lab = cls(otherwise, name)
        if lab._recorded is not None:
            lab.topology, lab.driver = lab._recorded
        return lab

    def namespace(self, node: str) -> str:
        return f"{self.name}-{node}"

    @property
    def compiles(self) -> bool:
        """Whether programs that start now must compile first, which takes seconds, once."""
        directory = cache.directory()
        return directory is None or not any(directory.glob("*.nbi"))

    @property
    def is_up(self) -> bool:
        """Whether all recorded namespaces exist and all recorded processes run."""
        self._read_state()
        have_namespaces = all(namespaces.exists(name) for name in self._made)
        return self._complete and have_namespaces and all(process.alive for process in self.processes)

    def up(self, programs: bool = True) -> bool:
        """Build the lab.  Returns False if it was up.  An incomplete lab is removed first."""
        if self.is_up:
            if self._recorded not in (None, (self.topology, self.driver)):
                raise LabError("", f"{self.name} is up with another topology or driver: run `lbmux lab down` first")
            return False
        self.existing(self.name, self.topology).down()
        for node in self.topology.nodes:
            if namespaces.exists(self.namespace(node.name)):
                raise LabError(
                    "", f"namespace {self.namespace(node.name)} exists and is not part of this lab: use another --name"
                )
        try:
            self.directory.mkdir(parents=True)
            self._write_state()
            self.write_config(self.topology.config)
            for name, text in self.topology.files.items():
                (self.directory / name).write_text(text)
            topology_builder.build(self.topology, self.namespace)
            if programs:
                self.start_programs()
        except PermissionError as error:
            raise LabError("", f"{error}: a lab needs root") from error
        except BaseException:
            with contextlib.suppress(LabError):
                self.down()
            raise
        self._complete = True
        self._write_state()
        return True

    def down(self) -> bool:
        """Remove everything that the lab recorded, and nothing else.  Returns False if there was nothing."""
        if not self.directory.exists():
            return False
        self._read_state()  # another process may have built it since
        processes.end(self.processes)
        self.processes = []
        for port in (port for link in self.topology.links for port in (link.a, link.b)):
            if namespaces.exists(self.namespace(port.node)):
                namespaces.inside(self.namespace(port.node), partial(detach, port.interface))
        for name in self._made:
            namespaces.remove(name)
        unmount_below(self.directory)
        shutil.rmtree(self.directory)
        self._complete = False
        return True

    def start_programs(self, but: tuple[str, str] = ("", "")) -> None:
        """Start every program of every node in parallel; one of each kind first, which compiles for the others.

        ``but``: a (node, program) to leave out.
        """
        jobs = [(node, one) for node in self.topology.nodes for one in node.programs if (node.name, one.name) != but]
        first = list({program.name: (node, program) for node, program in reversed(jobs)}.values())
        for group in (first, [job for job in jobs if job not in first]):
            with ThreadPoolExecutor(max(1, len(group))) as pool:
                for future in [pool.submit(self.start, node, program, forked=True) for node, program in group]:
                    future.result()

    def start(self, node: Node, program: Program, forked: bool = False) -> Process:
        """Start a program of a node, and return when it is ready.

        ``forked``: by the fork server, much sooner.  Events do without it, since they measure a start too.
        """
        agent_driver = {"packet": "tun"}.get(self.driver, self.driver)
        values = {"config": str(self.config), "state": str(self.directory), "node": node.name}
        values |= {"mux_driver": self.driver, "agent_driver": agent_driver}
        arguments = [argument.format(**values) for argument in program.arguments]
        log = self.directory / f"{node.name}-{program.name}.log"
        return processes.start(
            self.namespace(node.name), node.name, program.name, processes.python(program.module, *arguments), log,
            program.ready, self._record, forked,
        )  # fmt: skip

    def _record(self, process: Process) -> None:
        with self._recording:
            self._read_state()
            self.processes.append(process)
            self._write_state()

    def process(self, node: str, name: str) -> Process:
        for process in self.processes:
            if (process.node, process.name) == (node, name) and process.alive:
                return process
        raise LabError(node, f"no {name} runs on this node")

    def inside(self, node: str, work: Callable[[], Result]) -> Result:
        """Call ``work`` in a node's namespace, and return its result."""
        return namespaces.inside(self._namespace_of(node), work)

    def run(self, node: str, command: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[Any]":
        """Run a command in a node's namespace, and wait for it.

        Start it from a thread: a function between fork and exec would cost a fork of all our memory.
        """
        return self.inside(node, lambda: subprocess.run(command, **options))

    def popen(self, node: str, command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        return self.inside(node, lambda: subprocess.Popen(command, **options))

    def fork(self, node: str, command: Sequence[str], output: IO[bytes]) -> ForkedProcess:
        """Start ``python -m MODULE ...`` in a node's namespace, sooner than ``popen``: by the fork server."""
        return fork_server.shared().start(command, stdout=output, stderr=output, namespace=self._namespace_of(node))

    def _namespace_of(self, node: str) -> str:
        if node not in {known.name for known in self.topology.nodes}:
            raise LabError(node, f"no such node; nodes are {', '.join(known.name for known in self.topology.nodes)}")
        if not namespaces.exists(self.namespace(node)):
            raise LabError(node, "the lab is not up: lbmux lab up")
        if os.geteuid() != 0:
            raise LabError(node, "a lab needs root")
        return self.namespace(node)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the configuration that all muxes and agents share, atomically."""
        self.config_in_force = config
        fresh = self.config.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(config, sort_keys=False))
        fresh.replace(self.config)

    def status(self) -> dict[str, Any]:
        """Return the lab's nodes, their addresses and their programs, for `lbmux lab show`."""
        return {
            "name": self.name,
            "topology": self.topology.name,
            "driver": self.driver,
            "up": self.is_up,
            "config": str(self.config),
            "nodes": [self._node_status(node) for node in self.topology.nodes],
        }

    def _node_status(self, node: Node) -> dict[str, Any]:
        addresses = [port.address for port in self.topology.ports(node.name) if port.address]
        return {
            "node": node.name,
            "role": node.role,
            "namespace": self.namespace(node.name),
            "there": namespaces.exists(self.namespace(node.name)),
            "addresses": addresses + [address for _, address in node.extra_addresses],
            "programs": [asdict(p) | {"alive": p.alive} for p in self.processes if p.node == node.name],
        }

    @property
    def _state(self) -> Path:
        return self.directory / "state.json"

    def _read_state(self) -> None:
        self.processes, self._complete, self._recorded = [], False, None
        self._made = [self.namespace(node.name) for node in self.topology.nodes]
        with contextlib.suppress(FileNotFoundError, ValueError, RecursionError):
            state = json.loads(self._state.read_text())
            self._complete, self._made = state["complete"], state["namespaces"]
            self.processes = [Process(**process) for process in state["processes"]]
            if isinstance(state["topology"], dict):  # earlier versions recorded only the topology's name
                self._recorded = topology_file.parse(state["topology"]), state["driver"]

    def _write_state(self) -> None:
        state = {
            "topology": topology_file.plain(self.topology), "driver": self.driver, "complete": self._complete,
            "namespaces": [self.namespace(node.name) for node in self.topology.nodes],
            "processes": [asdict(process) for process in self.processes],
        }  # fmt: skip
        fresh = self._state.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        fresh.replace(self._state)
