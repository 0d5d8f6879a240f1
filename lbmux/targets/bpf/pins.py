"""What outlives its process: links, programs and maps under names in a BPF file system.

One directory a mux or agent.  In it a link for each place of attachment, and generations: directories with one set of
tables and the programs that work on it.  The generation in force is the one whose program is linked, so a swap
is one step, and what a process that was killed half-way leaves behind is known as left over.

This file stays free of Numba, as detaching has no use for it.
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
ROLES = ("mux", "agent")
OURS, FIRST_PID_NAMESPACE = "lbmux", 0xEFFFFFFC
"""What a BPF file system is mounted as that a daemon mounted; PROC_PID_INIT_INO, which only the machine itself has."""
LINK, EGRESS, PROGRAM = "link-", "egress-", "program-"
MODE = 0o700


def directory_of(interface: str, role: str) -> Path:
    """Of the mux or the agent (its ``role``) on an interface of this network namespace.

    Each has tables of its own, which the other could not read.  The file system allows no dots in names.
    """
    namespace = os.stat("/proc/thread-self/ns/net").st_ino
    return FILE_SYSTEM / "lbmux" / f"{namespace}-{interface.replace('.', ':')}-{role}"


def mount() -> None:
    """See to it that there is a BPF file system; SetupError where it cannot be mounted."""
    mounts = [line.split() for line in Path("/proc/thread-self/mounts").read_text().splitlines()]
    if any(fields[1] == str(FILE_SYSTEM) and fields[2] == "bpf" for fields in mounts):
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(OURS.encode(), os.fsencode(FILE_SYSTEM), b"bpf", 0, None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise SetupError(str(FILE_SYSTEM), reason, "the BPF file system cannot be mounted: needs CAP_SYS_ADMIN")


def lifetime_limit() -> str:
    """With what the BPF file system ends, and all that is pinned there; empty where it is the machine's own.

    It lives in mount namespaces.  `ip netns exec` makes one with an empty /sys: what is mounted there ends with the
    command.  A container's ends with the container, unless the host's is mounted into it.
    """
    try:
        here, of_init = _mounted("thread-self").get(str(FILE_SYSTEM)), _mounted("1")
    except OSError:  # nothing is known
        return ""
    if here is None or here.device not in {mounted.device for mounted in of_init.values()}:
        return "this process's own mount namespace"
    in_container = os.stat("/proc/thread-self/ns/pid").st_ino != FIRST_PID_NAMESPACE
    return "this container" if in_container and here.source == OURS else ""


class Mounted(NamedTuple):
    """``device``: its number, which only mounts of the same file system share."""

    device: str
    source: str


def _mounted(process: str) -> dict[str, Mounted]:
    """The BPF file systems of a process's mount namespace, by mount point (proc_pid_mountinfo(5))."""
    lines = [line.split() for line in Path(f"/proc/{process}/mountinfo").read_text().splitlines()]
    found = ((fields, fields.index("-")) for fields in lines)
    return {fields[4]: Mounted(fields[2], fields[at + 2]) for fields, at in found if fields[at + 1] == "bpf"}


class Pins:
    """A directory of one mux or agent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def links(self) -> dict[Attach, tuple[Path, str]]:
        """The pinned links: where each is, and the mode it was made in."""
        found = {}
        for path in _list(self.directory):
            place, _, mode = path.name.removeprefix(LINK).partition("-")
            if path.name.startswith(LINK) and place in Attach.__members__ and path.is_file():
                found[Attach[place]] = (path, mode)
        return found

    def link_path(self, attach: Attach, mode: str) -> Path:
        self.directory.mkdir(mode=MODE, parents=True, exist_ok=True)
        return self.directory / f"{LINK}{attach.name}-{mode}"

    def egress_links(self) -> dict[int, Path]:
        """The pinned links of the egress program at other interfaces than the daemon's, by interface index."""
        paths = (path for path in _list(self.directory) if path.name.startswith(EGRESS))
        return {int(path.name.removeprefix(EGRESS)): path for path in paths}

    def egress_path(self, index: int) -> Path:
        return self.directory / f"{EGRESS}{index}"

    def generations(self) -> list[Path]:
        """Oldest first; what else is there is none of ours."""
        found = (path for path in _list(self.directory) if path.is_dir() and path.name.isdecimal())
        return sorted(found, key=lambda path: int(path.name))

    def new_generation(self) -> Path:
        numbers = [int(path.name) for path in self.generations()]
        made = self.directory / str(max(numbers, default=0) + 1)
        made.mkdir(mode=MODE, parents=True)
        return made

    def in_force(self) -> Path | None:
        """The generation whose program is linked, or None."""
        linked = set()
        for path, _ in self.links().values():
            with _opened(path) as descriptor:
                linked.add(syscall.linked_program_id(descriptor))
        for generation in reversed(self.generations()):
            for path in generation.glob(f"{PROGRAM}*"):
                with _opened(path) as descriptor:
                    if syscall.program_id(descriptor) in linked:
                        return generation
        return None

    def pin_program(self, generation: Path, attach: Attach, descriptor: int) -> None:
        """Beside the ones before it, until ``remove_all_but``: each may be the linked one."""
        numbers = [int(path.name.rpartition("-")[2]) for path in generation.glob(f"{PROGRAM}{attach.name}-*")]
        syscall.pin(generation / f"{PROGRAM}{attach.name}-{max(numbers, default=0) + 1}", descriptor)

    def remove_all_but(self, generation: Path, programs: set[int]) -> None:
        """Leave this generation, and in it these programs (their ids)."""
        for path in generation.glob(f"{PROGRAM}*"):
            with _opened(path) as descriptor:
                known = syscall.program_id(descriptor)
            if known not in programs:
                path.unlink()
        for other in self.generations():
            if other != generation:
                _remove(other)

    def remove(self) -> bool:
        """Take the programs off, and everything away; whether there was anything."""
        for path in [*(path for path, _ in self.links().values()), *self.egress_links().values()]:
            with _opened(path) as descriptor, suppress(BpfError):  # the interface may be gone
                syscall.detach_link(descriptor)
        return _remove(self.directory)


class _opened:
    """The descriptor of a pinned object, for as long as it is needed."""

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
