"""The bpf(2) calls that load and run programs, each with its own arguments and a clear error.

Descriptors are plain integers, close-on-exec; the caller closes them. Layouts are those of ``union bpf_attr`` in
linux/bpf.h; the kernel accepts any prefix of it.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import platform
import resource
import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from lbmux.errors import LbmuxError

NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
"""The system call number of bpf(2) by machine."""


class Command(IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    OBJ_GET_INFO = 15
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_DETACH = 34


class ProgramType(IntEnum):
    SCHED_CLS = 3
    XDP = 6


class Attach(IntEnum):
    """Attach points, with the kernel's numbers."""

    XDP = 37
    TCX_INGRESS = 46
    TCX_EGRESS = 47

    @property
    def type(self) -> ProgramType:
        return ProgramType.XDP if self is Attach.XDP else ProgramType.SCHED_CLS


XDP_HAS_FRAGS = 1 << 5
"""The flag of a program that accepts frames in several buffers: MTUs larger than a page (Linux 5.18)."""
HASH, ARRAY, PROGRAMS, RING, NO_PREALLOCATION, MMAPABLE = 1, 2, 3, 27, 1 << 0, 1 << 10
XDP_GENERIC, XDP_NATIVE = 1 << 1, 1 << 2
SLOT_KEY = bytes(4)
LOG_ALL, LOG_STATISTICS = 1, 4
LOG_BYTES, SMALL_LOG_BYTES = 1 << 24, 1 << 12
NAME_BYTES = 15
LAST_LINES = 12
LICENCE = ctypes.create_string_buffer(b"GPL")


class BpfError(LbmuxError):
    """The kernel refused a bpf(2) call. ``log`` is the verifier's log, if there is one."""

    what: str
    number: int
    log: str = ""

    @property
    def last_lines(self) -> list[str]:
        """The end of the verifier's log, which has the reason."""
        return self.log.rstrip("\0\n").splitlines()[-LAST_LINES:]

    def __str__(self) -> str:
        hint = " (needs CAP_BPF and CAP_NET_ADMIN: run as root)" if self.number == errno.EPERM else ""
        return "\n".join([f"{self.what}: {os.strerror(self.number)}{hint}", *self.last_lines])


@cache
def _syscall() -> tuple[ctypes.CDLL, int]:
    """Return the C library and bpf's number. Raise the locked memory limit: kernels before 5.11 count maps there."""
    number = NUMBER.get(platform.machine())
    if number is None:
        raise BpfError(f"bpf(2) on {platform.machine()}", errno.ENOSYS)
    with contextlib.suppress(ValueError, OSError):  # not permitted; newer kernels do not need it
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return ctypes.CDLL(None, use_errno=True), number


def command(number: Command, attributes: "ctypes.Array[ctypes.c_char]", what: str) -> int:
    """Make one call. The kernel may write to the attributes. Return its result, often a descriptor."""
    library, syscall = _syscall()
    while True:
        result = int(library.syscall(syscall, int(number), attributes, len(attributes)))
        if result >= 0:
            return result
        if ctypes.get_errno() not in (errno.EINTR, errno.EAGAIN):
            raise BpfError(what, ctypes.get_errno())


def _bpf(number: Command, attributes: bytes, what: str) -> int:
    return command(number, ctypes.create_string_buffer(attributes, len(attributes)), what)


def _name(name: str) -> bytes:
    return name.encode()[:NAME_BYTES]


def create_array(name: str, value_bytes: int) -> int:
    """Create a map with one value that can be mapped into memory. Programs read and write it directly."""
    attributes = struct.pack("<5I8x16s", ARRAY, 4, value_bytes, 1, MMAPABLE, _name(name))
    return _bpf(Command.MAP_CREATE, attributes, f"map {name} of {value_bytes} bytes")


def create_ring(name: str, size_bytes: int) -> int:
    """Create a ring buffer for records that programs write. Its size is a power of two of pages."""
    return _bpf(Command.MAP_CREATE, struct.pack("<5I8x16s", RING, 0, 0, size_bytes, 0, _name(name)), f"ring {name}")


def create_hash(name: str, key_bytes: int, value_bytes: int, most: int) -> int:
    """Create a hash map of at most ``most`` elements. Its memory grows with them."""
    attributes = struct.pack("<5I8x16s", HASH, key_bytes, value_bytes, most, NO_PREALLOCATION, _name(name))
    return _bpf(Command.MAP_CREATE, attributes, f"map {name} of {most} elements")


def create_program_slot(name: str) -> int:
    """Create a program array with one element, for a tail call. It is emptied when it is neither open nor pinned."""
    return _bpf(Command.MAP_CREATE, struct.pack("<5I8x16s", PROGRAMS, 4, 4, 1, 0, _name(name)), f"map {name}")


def fill_program_slot(slot: int, program: int) -> None:
    """Replace the program atomically."""
    update_element(slot, SLOT_KEY, struct.pack("<I", program))


def empty_program_slot(slot: int) -> None:
    delete_element(slot, SLOT_KEY)


def program_in_slot(slot: int) -> int:
    """Return the id of the program, or 0."""
    key, value = ctypes.create_string_buffer(SLOT_KEY, 4), ctypes.create_string_buffer(4)
    attributes = struct.pack("<I4xQQQ", slot, ctypes.addressof(key), ctypes.addressof(value), 0)
    try:
        _bpf(Command.MAP_LOOKUP_ELEM, attributes, "program slot")
    except BpfError as error:
        if error.number != errno.ENOENT:
            raise
        return 0
    return int.from_bytes(value.raw, "little")


def update_element(descriptor: int, key: bytes, value: bytes) -> None:
    """Add an element or replace its value."""
    _element(Command.MAP_UPDATE_ELEM, descriptor, key, value)


def delete_element(descriptor: int, key: bytes) -> None:
    _element(Command.MAP_DELETE_ELEM, descriptor, key)


def _element(number: Command, descriptor: int, key: bytes, value: bytes = b"") -> None:
    key_buffer, value_buffer = (
        ctypes.create_string_buffer(key, len(key)),
        ctypes.create_string_buffer(value, len(value)),
    )
    value_address = ctypes.addressof(value_buffer) if value else 0
    _bpf(number, struct.pack("<I4xQQQ", descriptor, ctypes.addressof(key_buffer), value_address, 0), "map element")


def map_value(descriptor: int, value_bytes: int) -> mmap.mmap:
    """Map the value of a ``create_array`` map into memory."""
    return mmap.mmap(descriptor, -(-value_bytes // mmap.PAGESIZE) * mmap.PAGESIZE)


@dataclass(frozen=True)
class Loaded:
    """A loaded program: its descriptor, its length in instructions, and how many the verifier processed."""

    descriptor: int
    instructions: int
    verified: int


def load_program(attach: Attach, code: bytes, name: str) -> Loaded:
    """Verify and load ``code`` for an attach point. Raise BpfError with the verifier's log if it is refused."""
    try:
        descriptor, log = _load(attach, code, name, LOG_STATISTICS, SMALL_LOG_BYTES)
    except BpfError as refused:
        if refused.number == errno.EPERM:
            raise
        descriptor, log = _load(attach, code, name, LOG_ALL | LOG_STATISTICS, LOG_BYTES)
    words = log.partition("processed ")[2].split()
    return Loaded(descriptor, len(code) // 8, int(words[0]) if words else 0)


def _load(attach: Attach, code: bytes, name: str, log_level: int, log_bytes: int) -> tuple[int, str]:
    """Load with multi-buffer support if the kernel has it. A kernel without it refuses the flag without a log."""
    if attach is Attach.XDP:
        try:
            return _load_with(XDP_HAS_FRAGS, attach, code, name, log_level, log_bytes)
        except BpfError as error:
            if error.number != errno.EINVAL or error.log:
                raise
    return _load_with(0, attach, code, name, log_level, log_bytes)


def _load_with(flags: int, attach: Attach, code: bytes, name: str, log_level: int, log_bytes: int) -> tuple[int, str]:
    instructions, log = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(log_bytes)
    attributes = struct.pack(
        "<IIQQIIQII16sII", attach.type, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(LICENCE),
        log_level, log_bytes, ctypes.addressof(log), 0, flags, _name(name), 0, attach,
    )  # fmt: skip
    try:
        return _bpf(Command.PROG_LOAD, attributes, name), log.value.decode(errors="replace")
    except BpfError as error:
        raise BpfError(f"program {name}", error.number, log.value.decode(errors="replace")) from None


def create_link(program: int, interface_index: int, attach: Attach, flags: int = 0) -> int:
    """Attach a program to an interface for the lifetime of the descriptor or a pin of it."""
    attributes = struct.pack("<IIII16x", program, interface_index, attach, flags)
    return _bpf(Command.LINK_CREATE, attributes, f"attach to interface {interface_index} ({attach.name})")


def update_link(link: int, program: int) -> None:
    """Replace the attached program atomically."""
    _bpf(Command.LINK_UPDATE, struct.pack("<IIII", link, program, 0, 0), "replace the attached program")


def detach_link(link: int) -> None:
    """Detach the program from the interface now, even if other descriptors of the link exist."""
    _bpf(Command.LINK_DETACH, struct.pack("<I", link), "detach")


def pin(path: str | os.PathLike[str], descriptor: int) -> None:
    """Pin an object in a BPF file system, which keeps it alive."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    _bpf(Command.OBJ_PIN, struct.pack("<QII", ctypes.addressof(text), descriptor, 0), f"pin {os.fspath(path)}")


def open_pinned(path: str | os.PathLike[str]) -> int:
    text = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(Command.OBJ_GET, struct.pack("<QII", ctypes.addressof(text), 0, 0), f"open {os.fspath(path)}")


def _information(descriptor: int, size: int, what: str) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    _bpf(Command.OBJ_GET_INFO, struct.pack("<IIQ", descriptor, size, ctypes.addressof(buffer)), what)
    return buffer.raw


def program_id(descriptor: int) -> int:
    return int(struct.unpack_from("<I", _information(descriptor, 16, "program's id"), 4)[0])


def map_value_bytes(descriptor: int) -> int:
    return int(struct.unpack_from("<I", _information(descriptor, 24, "map's size"), 12)[0])


def linked_program_id(link: int) -> int:
    return int(struct.unpack_from("<I", _information(link, 24, "link's program"), 8)[0])


def linked_interface(link: int) -> int:
    """Return the index of the interface that a link is attached to, or 0 if it is gone."""
    return int(struct.unpack_from("<I", _information(link, 24, "link's interface"), 16)[0])
