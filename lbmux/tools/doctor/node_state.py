"""The state that the doctor checks: the node's role, its daemon, the configuration, the pool.

Each part is read when a check first asks for it and then cached, so that all checks see the same state.
"""

import socket
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lbmux.addresses import Address
from lbmux.api.answers import HealthLine, NeighbourLine, Runtime
from lbmux.api.channel import program_named
from lbmux.api.control_client import ControlClient
from lbmux.api.control_paths import default_path
from lbmux.api.requests import GetCounters, GetHealth, GetNeighbours, GetRuntime
from lbmux.config.loader import load
from lbmux.config.models import Config
from lbmux.errors import LbmuxError
from lbmux.linux.interface_addresses import addresses
from lbmux.tools.doctor.role_guess import guess_role

Role = Literal["mux", "agent", "edge", "balancing-edge", "router", "host"]
PROGRAMS: dict[Role, str] = {"mux": "mux", "agent": "agent", "edge": "edge", "balancing-edge": "edge"}
"""The roles with an lbmux daemon.  A router has none; role host is a host whose agent is not asked."""
NO_TRACE = "no lbmux daemon runs here and none has left files"
TIMEOUT_S = 5.0
PEER = struct.Struct("3i")
"""struct ucred: process, user and group id."""


@dataclass(frozen=True)
class NodeState:
    """``control`` is the daemon's socket.  ``file`` replaces the configuration file that the daemon names.

    ``guessed``: why this role is assumed, if no role was given and no daemon runs.
    """

    role: Role
    control: Path
    file: Path | None = None
    peers: tuple[Path, ...] = ()
    guessed: str = ""

    @classmethod
    def here(cls, role: Role | None, control: Path | None, file: Path | None, peers: tuple[Path, ...]) -> "NodeState":
        """Return the state of this node.  A missing role is taken from the control sockets on this machine."""
        if role is None and control is not None:
            return cls._of_socket(control, file, peers)
        if role is None:
            running: list[Role] = [known for known, program in PROGRAMS.items() if default_path(program).exists()]
            if not running:
                return cls._without_daemon(file, peers)
            role = running[0]
            if PROGRAMS[role] == "edge":
                return cls._of_socket(default_path("edge"), file, peers)
        return cls(role, control or default_path(PROGRAMS.get(role, "mux")), file, peers)

    @classmethod
    def _of_socket(cls, control: Path, file: Path | None, peers: tuple[Path, ...]) -> "NodeState":
        """Ask the daemon for its role; if it is down, the socket's name may tell it."""
        answered = _program(control)
        program = answered or program_named(control)
        reason = "" if program else f"nothing answers at {control}"
        if program == "edge":  # without --balance it has no tables, and does not answer
            return cls("balancing-edge" if answered else "edge", control, file, peers)
        return cls("agent" if program == "agent" else "mux", control, file, peers, reason)

    @classmethod
    def _without_daemon(cls, file: Path | None, peers: tuple[Path, ...]) -> "NodeState":
        """Guess the role of a machine without a control socket: its mux or agent may be down."""
        config = cls("router", Path(), file).config
        role, reason = guess_role(config, addresses()) or ("router", NO_TRACE)
        return cls(role, default_path(PROGRAMS.get(role, "mux")), file, peers, reason)

    @property
    def has_daemon(self) -> bool:
        return self.role in PROGRAMS

    @property
    def client(self) -> ControlClient:
        return ControlClient(self.control, TIMEOUT_S)

    @cached_property
    def runtime(self) -> Runtime | None:
        """The daemon's answer to `runtime`; None if no daemon answers."""
        try:
            return self.client.ask(GetRuntime())
        except LbmuxError:
            return None

    @cached_property
    def pid(self) -> int | None:
        """The daemon's process id, from the socket's peer credentials.

        The daemon's own answer may be a number in another PID namespace.
        """
        if not self.has_daemon or (self.runtime is None and self.role != "edge"):
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            if connection.connect_ex(str(self.control)):
                return None
            pid, _, _ = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        return int(pid)

    @cached_property
    def config_path(self) -> Path | None:
        return self.file or (Path(self.runtime.config) if self.has_daemon and self.runtime else None)

    @cached_property
    def config(self) -> Config | None:
        """The configuration; None without a file, or with an invalid one."""
        try:
            return load(self.config_path) if self.config_path else None
        except LbmuxError:
            return None

    @cached_property
    def interface(self) -> str | None:
        """The daemon's interface."""
        return self.runtime.interface if self.has_daemon and self.runtime else None

    @cached_property
    def neighbours(self) -> list[NeighbourLine]:
        return self.client.whole(GetNeighbours()).neighbours if self.has_daemon and self.runtime else []

    @cached_property
    def not_serving(self) -> list[HealthLine]:
        """Backends that are down by health checks, or drained, disabled or removed by an operator."""
        if self.role != "mux" or not self.runtime:
            return []
        return [line for line in self.client.whole(GetHealth()).health if line.state != "up"]

    @cached_property
    def counters(self) -> dict[str, Any] | None:
        """The daemon's counters at the first reading: packets by verdict, look-ups by result, ring, slow path."""
        if not self.has_daemon or not self.runtime:
            return None
        answer = self.client.ask(GetCounters())
        verdicts = {line.verdict: line.packets for line in answer.verdicts}
        return {"verdicts": verdicts, "lookups": answer.lookups, "ring": answer.ring, "slowpath": answer.slowpath}

    @cached_property
    def vips(self) -> list[Address]:
        return sorted({service.vip for service in self.config.services}, key=str) if self.config else []


def _program(control: Path) -> str:
    try:
        return ControlClient(control, TIMEOUT_S).ask(GetRuntime()).program
    except LbmuxError:
        return ""
