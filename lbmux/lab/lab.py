"""A lab: a topology brought to life, remembered in a state file, taken down to the last piece.

The state file names every namespace and process that was made, before it is used; so a lab that was cut off half way
can be taken down too, and nothing else ever is.
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
from typing import Any, TypeVar

import yaml

from lbmux.codegen import cache
from lbmux.errors import LabError
from lbmux.frames.xdp import detach
from lbmux.lab import namespaces, processes, topology_file
from lbmux.lab.processes import Process
from lbmux.lab.topology import Node, Program, Topology

ROOT = Path("/run/lbmux/lab")
DEFAULT_NAME = "lbmux"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Of a lab.  It becomes part of a path that ``down`` removes with everything in it: never one from elsewhere."""
Result = TypeVar("Result")


class Lab:
    """One lab by name; ``topology`` is what ``up`` builds.  Other processes may bring it up and take it down."""

    def __init__(self, topology: Topology, name: str = DEFAULT_NAME, driver: str = "auto") -> None:
        """``driver``: what muxes and agents forward with: auto, packet (an agent's is called tun) or xdp."""
        if not NAME.fullmatch(name):
            raise LabError("", f"{name!r} cannot be a lab's name: letters and digits, then also - _ and .")
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
        """The lab of that name as it was brought up; where there is none, one of another topology."""
        lab = cls(otherwise, name)
        if lab._recorded is not None:
            lab.topology, lab.driver = lab._recorded
        return lab

    def namespace(self, node: str) -> str:
        return f"{self.name}-{node}"

    @property
    def compiles(self) -> bool:
        """Whether programs that start now have to compile first, which takes seconds, once."""
        directory = cache.directory()
        return directory is None or not any(directory.glob("*.nbi"))

    @property
    def is_up(self) -> bool:
        """Whether all that was made is there: namespaces, and processes alive."""
        self._read_state()
        there = all(namespaces.exists(name) for name in self._made)
        return self._complete and there and all(process.alive for process in self.processes)

    def up(self, programs: bool = True) -> bool:
        """Build it; False if it was up.  A lab that is half there is taken down first."""
        if self.is_up:
            if self._recorded not in (None, (self.topology, self.driver)):
                raise LabError("", f"{self.name} is up, of another topology or driver: lbmux lab down")
            return False
        self.existing(self.name, self.topology).down()
        for node in self.topology.nodes:
            if namespaces.exists(self.namespace(node.name)):
                raise LabError("", f"namespace {self.namespace(node.name)} is there and not ours: take another --name")
        try:
            self.directory.mkdir(parents=True)
            self._write_state()
            self.write_config(self.topology.config)
            namespaces.build(self.topology, self.namespace)
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
        """Remove what was made, and only that; whether there was anything."""
        if not self.directory.exists():
            return False
        self._read_state()  # another process may have brought it up since
        processes.end(self.processes)
        self.processes = []
        for port in (port for link in self.topology.links for port in (link.a, link.b)):
            if namespaces.exists(self.namespace(port.node)):
                namespaces.inside(self.namespace(port.node), partial(detach, port.interface))
        for name in self._made:
            namespaces.remove(name)
        shutil.rmtree(self.directory)
        self._complete = False
        return True

    def start_programs(self, but: tuple[str, str] = ("", "")) -> None:
        """Every program of every node, side by side; but one of each kind first, which compiles for the others.

        ``but``: (node, program) that is left out.
        """
        jobs = [(node, one) for node in self.topology.nodes for one in node.programs if (node.name, one.name) != but]
        first = list({program.name: (node, program) for node, program in reversed(jobs)}.values())
        for group in (first, [job for job in jobs if job not in first]):
            with ThreadPoolExecutor(max(1, len(group))) as pool:
                for future in [pool.submit(self.start, node, program) for node, program in group]:
                    future.result()

    def start(self, node: Node, program: Program) -> Process:
        """Start a program of a node; when it returns, the program is ready."""
        agent_driver = {"packet": "tun"}.get(self.driver, self.driver)
        values = {"config": str(self.config), "state": str(self.directory), "node": node.name}
        values |= {"mux_driver": self.driver, "agent_driver": agent_driver}
        arguments = [argument.format(**values) for argument in program.arguments]
        log = self.directory / f"{node.name}-{program.name}.log"
        return processes.start(
            self.namespace(node.name), node.name, program.name, processes.python(program.module, *arguments), log,
            program.ready, self._record,
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
        raise LabError(node, f"no {name} runs there")

    def inside(self, node: str, work: Callable[[], Result]) -> Result:
        """Do something in a node's namespace."""
        return namespaces.inside(self._namespace_of(node), work)

    def run(self, node: str, command: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[Any]":
        """Run a command in a node and wait for it."""
        name = self._namespace_of(node)
        return subprocess.run(command, preexec_fn=lambda: namespaces.enter(name), **options)

    def popen(self, node: str, command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        name = self._namespace_of(node)
        return subprocess.Popen(command, preexec_fn=lambda: namespaces.enter(name), **options)

    def _namespace_of(self, node: str) -> str:
        if node not in {known.name for known in self.topology.nodes}:
            raise LabError(node, f"no such node: {', '.join(known.name for known in self.topology.nodes)}")
        if not namespaces.exists(self.namespace(node)):
            raise LabError(node, "the lab is not up: lbmux lab up")
        if os.geteuid() != 0:
            raise LabError(node, "a lab needs root")
        return self.namespace(node)

    def write_config(self, config: dict[str, Any]) -> None:
        """The services that all muxes and agents share.  Moved into place, so nobody reads half of it."""
        self.config_in_force = config
        fresh = self.config.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(config, sort_keys=False))
        fresh.replace(self.config)

    def status(self) -> dict[str, Any]:
        """The nodes, their addresses and their programs."""
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
            if isinstance(state["topology"], dict):  # a lab of an earlier version has only its name there
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
