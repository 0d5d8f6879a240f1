"""Runs `lbmux` with a wall clock of its own, a small disk of its own, or in another time namespace.

    python -m lbmux.lab.altered_program [--clock FILE] [--disk DIRECTORY] [--boot-offset SECONDS] WORDS...

The machine's clock never changes: libfaketime answers for the wall clock of this process alone, with the offset that
FILE has.  It leaves the monotonic clock as it is.  With it time.sleep() fails (libfaketime 0.9.10 hands absolute times
of the wall clock to clock_nanosleep(2)), so it suits daemons, which wait in epoll, and nothing else.
"""

import argparse
import contextlib
import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lbmux.errors import LabError

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""libfaketime where Debian has it, or None."""
CLONE_NEWTIME, MNT_DETACH = 0x80, 2
DISK_BYTES = 1 << 20
NO_OFFSET = "+0\n"
SOCKET = "mux.sock"


def faked(clock: Path) -> dict[str, str]:
    """Return the environment that makes a process take its wall clock's offset from a file, once a second.

    Without FAKETIME_FORCE_MONOTONIC_FIX=0 timed waits of threads end at once: those that want the interpreter then ask
    for it all the time, and a packet loop is half a second late.
    """
    if LIBRARY is None:
        raise LabError("", "libfaketime is not installed: apt install libfaketime")
    return {
        "LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0", "NO_FAKE_STAT": "1",
    }  # fmt: skip


def step(clock: Path, seconds: int) -> None:
    """Set the offset in the file atomically."""
    fresh = clock.with_suffix(".new")
    fresh.write_text(f"{seconds:+d}\n")
    fresh.replace(clock)


def mount_disk(directory: Path) -> None:
    """Mount a tmpfs of 1 MiB at a directory, unless one is there.  The lab unmounts it."""
    directory.mkdir(exist_ok=True)
    if os.path.ismount(directory):
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(b"lbmux-lab", os.fsencode(directory), b"tmpfs", 0, b"size=%d,mode=0700" % DISK_BYTES) != 0:
        raise LabError("", f"{directory}: {os.strerror(ctypes.get_errno())}")


def unmount_below(directory: Path) -> None:
    """Unmount what is mounted below a directory."""
    mounted = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    for path in reversed([one for one in mounted if directory in one.parents]):
        if ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(path), MNT_DETACH) != 0:
            raise LabError("", f"{path}: {os.strerror(ctypes.get_errno())}")


def link(directory: Path) -> None:
    """Make the control socket that is on the disk reachable where the lab expects it."""
    with contextlib.suppress(FileExistsError):
        directory.with_name(f"{directory.name}.sock").symlink_to(directory / SOCKET)


def enter_time_namespace(offset_s: int) -> None:
    """Move this process, which has one thread, to a new time namespace whose clocks since boot differ
    (time_namespaces(7)).
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(CLONE_NEWTIME) != 0:
        raise LabError("", f"no time namespace: {os.strerror(ctypes.get_errno())}")
    Path("/proc/self/timens_offsets").write_text(f"monotonic {offset_s} 0\nboottime {offset_s} 0\n")
    descriptor = os.open("/proc/self/ns/time_for_children", os.O_RDONLY)
    if library.setns(descriptor, CLONE_NEWTIME) != 0:
        raise LabError("", f"time namespace: {os.strerror(ctypes.get_errno())}")
    os.close(descriptor)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clock", type=Path, help="file with the offset of the wall clock in seconds")
    parser.add_argument("--disk", type=Path, help="directory to mount a small tmpfs at")
    parser.add_argument("--boot-offset", type=int, metavar="SECONDS", help="offset of a new time namespace")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="arguments of lbmux")
    given = parser.parse_args(arguments)
    environment = dict(os.environ)
    if given.disk:
        mount_disk(given.disk)
        link(given.disk)
    if given.boot_offset:
        enter_time_namespace(given.boot_offset)
    if given.clock:
        if not given.clock.exists():
            given.clock.write_text(NO_OFFSET)
        environment |= faked(given.clock)
    os.execve(sys.executable, [sys.executable, "-m", "lbmux.cli.main", *given.words], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
