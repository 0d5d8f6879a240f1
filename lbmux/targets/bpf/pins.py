"""Pins: links, programs and maps in a BPF file system, which outlive their process.

Each mux or agent has one directory. It holds a link for each attach point, and generations: directories with one set
of tables and the programs that use it. The generation in force is the one whose program is linked, so a swap is atomic
and the remains of a killed process are recognised.

This module does not import Numba, which detaching does not need.
"""

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lbmux.errors import SetupError
from lbmux.targets.bpf import syscall
from lbmux.targets.bpf.syscall import Attach, BpfError

FILE_SYSTEM = Path("/sys/fs/bpf")
EDGE = "edge"
"""The role whose directory has only the filter of an edge in user space (lbmux.daemons.host_forwarding)."""
ROLES = ("mux", "agent", EDGE)
OURS, FIRST_PID_NAMESPACE = "lbmux", 0xEFFFFFFC
"""The source name of a BPF file system that a daemon mounted; PROC_PID_INIT_INO, the host's own PID namespace."""
LINK, EGRESS, PROGRAM, GATE_SLOT = "link-", "egress-", "program-", "gate-slot"
BEHIND_MUX = "behind_mux"
"""The attach mode of an edge's agent. The pinned object is not a link but a program slot, from which the mux's program
calls the agent's."""
MODE = 0o700


def directory_of(interface: str, role: str) -> Path:
    """Return the directory of the mux or agent (its ``role``) on an interface of this network namespace.

    Mux and agent have tables with different contents. The file system allows no dots in names.
    """
    namespace = os.stat("/proc/thread-self/ns/net").st_ino
    return FILE_SYSTEM / "lbmux" / f"{namespace}-{interface.replace('.', ':')}-{role}"


def mount() -> None:
    """Mount the BPF file system if it is not mounted. Raise SetupError if that fails."""
    mounts = [line.split() for line in Path("/proc/thread-self/mounts").read_text().splitlines()]
    if any(fields[1] == str(FILE_SYSTEM) and fields[2] == "bpf" for fields in mounts):
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(OURS.encode(), os.fsencode(FILE_SYSTEM), b"bpf", 0, None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise SetupError(str(FILE_SYSTEM), reason, "mounting the BPF file system needs CAP_SYS_ADMIN")


def lifetime_limit() -> str:
    """Return what ends the lifetime of the BPF file system and of all pins, or an empty string for the host's own.

    A BPF file system lives as long as its mount namespaces. `ip netns exec` creates one with an empty /sys, which ends
    with the command. A container's ends with the container, unless the host's is mounted into it.
    """
    try:
        here, of_init = _mounted("thread-self").get(str(FILE_SYSTEM)), _mounted("1")
    except OSError:  # cannot be determined
        return ""
    if here is None or here.device not in {mounted.device for mounted in of_init.values()}:
        return "this process's own mount namespace"
    in_container = os.stat("/proc/thread-self/ns/pid").st_ino != FIRST_PID_NAMESPACE
    return "this container" if in_container and here.source == OURS else ""


class Mounted(NamedTuple):
    """A mounted file system. ``device`` is its number, which only mounts of the same file system share."""

    device: str
    source: str


def _mounted(process: str) -> dict[str, Mounted]:
    """Return the BPF file systems of a process's mount namespace, by mount point (proc_pid_mountinfo(5))."""
    lines = [line.split() for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines()]
    mounts = ((fields, fields.index("-")) for fields in lines)
    return {fields[4]: Mounted(fields[2], fields[at + 2]) for fields, at in mounts if fields[at + 1] == "bpf"}


class Pins:
    """The pin directory of one mux or agent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def links(self) -> dict[Attach, tuple[Path, str]]:
        """Return the pinned links by attach point: (path, attach mode)."""
        results = {}
        for path in _list(self.directory):
            place, _, mode = path.name.removeprefix(LINK).partition("-")
            if path.name.startswith(LINK) and place in Attach.__members__ and path.is_file():
                results[Attach[place]] = (path, mode)
        return results

    def link_path(self, attach: Attach, mode: str) -> Path:
        self.directory.mkdir(mode=MODE, parents=True, exist_ok=True)
        return self.directory / f"{LINK}{attach.name}-{mode}"

    def egress_links(self) -> dict[int, Path]:
        """Return the egress program's pinned links at interfaces other than the daemon's, by interface index."""
        paths = (path for path in _list(self.directory) if path.name.startswith(EGRESS))
        return {int(path.name.removeprefix(EGRESS)): path for path in paths}

    def egress_path(self, index: int) -> Path:
        return self.directory / f"{EGRESS}{index}"

    def generations(self) -> list[Path]:
        """Return the generations, oldest first. Other directories are ignored."""
        directories = (path for path in _list(self.directory) if path.is_dir() and path.name.isdecimal())
        return sorted(directories, key=lambda path: int(path.name))

    def new_generation(self) -> Path:
        numbers = [int(path.name) for path in self.generations()]
        directory = self.directory / str(max(numbers, default=0) + 1)
        directory.mkdir(mode=MODE, parents=True)
        return directory

    def in_force(self) -> Path | None:
        """Return the generation whose program is linked, or None."""
        linked = set()
        for path, _ in self.links().values():
            with _opened(path) as descriptor:
                linked.add(linked_program(path, descriptor))
        for generation in reversed(self.generations()):
            for path in generation.glob(f"{PROGRAM}*"):
                with _opened(path) as descriptor:
                    if syscall.program_id(descriptor) in linked:
                        return generation
        return None

    def pin_program(self, generation: Path, attach: Attach, descriptor: int) -> None:
        """Pin a program. Earlier ones stay until ``remove_all_but``: each may be the linked one."""
        numbers = [int(path.name.rpartition("-")[2]) for path in generation.glob(f"{PROGRAM}{attach.name}-*")]
        syscall.pin(generation / f"{PROGRAM}{attach.name}-{max(numbers, default=0) + 1}", descriptor)

    def pin_gate_slot(self, generation: Path, slot: int) -> None:
        """Pin the slot of the program behind the gate, which is emptied otherwise when its process ends."""
        path = generation / GATE_SLOT
        path.unlink(missing_ok=True)
        syscall.pin(path, slot)

    def remove_all_but(self, generation: Path, programs: set[int]) -> None:
        """Remove everything but this generation and, in it, the programs with these ids."""
        for path in generation.glob(f"{PROGRAM}*"):
            with _opened(path) as descriptor:
                known = syscall.program_id(descriptor)
            if known not in programs:
                path.unlink()
        for other in self.generations():
            if other != generation:
                _remove(other)

    def detach_egress(self, index: int) -> None:
        """Detach the egress program from another interface, if it is there, before this returns.

        Without its pin a link would end too, but some time later.
        """
        path = self.egress_path(index)
        if path.exists():
            with _opened(path) as descriptor, suppress(BpfError):  # the interface may be gone
                syscall.detach_link(descriptor)
            path.unlink()

    def remove(self) -> bool:
        """Detach the programs and remove everything. Return whether there was anything."""
        for path in [*(path for path, _ in self.links().values()), *self.egress_links().values()]:
            with _opened(path) as descriptor, suppress(BpfError):  # the interface may be gone
                syscall.empty_program_slot(descriptor) if is_slot(path) else syscall.detach_link(descriptor)
        return _remove(self.directory)


def is_slot(path: Path) -> bool:
    return path.name.endswith(f"-{BEHIND_MUX}")


def linked_program(path: Path, descriptor: int) -> int:
    """Return the id of the program of a pinned link or slot, or 0 if a slot is empty."""
    return syscall.program_in_slot(descriptor) if is_slot(path) else syscall.linked_program_id(descriptor)


def open_slot(interface: str) -> int:
    """Open the slot of the agent behind an interface's mux. Create and pin it if there is none."""
    path = Pins(directory_of(interface, "agent")).link_path(syscall.Attach.XDP, BEHIND_MUX)
    with suppress(BpfError):
        return syscall.open_pinned(path)
    slot = syscall.create_program_slot("lbmux_agent")
    syscall.pin(path, slot)
    return slot


class _opened:
    """A context manager for the descriptor of a pinned object."""

    def __init__(self, path: Path) -> None:
        self._descriptor = syscall.open_pinned(path)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)


def _list(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []


def _remove(directory: Path) -> bool:
    paths = _list(directory)
    for path in paths:
        if path.is_dir():
            _remove(path)
        else:
            path.unlink(missing_ok=True)
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise
    return bool(paths)
