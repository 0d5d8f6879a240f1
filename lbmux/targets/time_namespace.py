"""The offset of this process's CLOCK_MONOTONIC from the kernel's, which differs in a time namespace.

Kernel programs read the clock without the offset, so user space subtracts it before it compares their times with its
own.  Containers that were checkpointed and restored, for example, run in a time namespace (time_namespaces(7)).
"""

from pathlib import Path

OFFSETS = Path("/proc/self/timens_offsets")


def monotonic_offset_ns(path: Path = OFFSETS) -> int:
    """Return the offset in nanoseconds; 0 if the kernel has no time namespaces."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    offsets = {name: (int(seconds), int(nanoseconds)) for name, seconds, nanoseconds in map(str.split, lines)}
    seconds, nanoseconds = offsets["monotonic"]
    return seconds * 1_000_000_000 + nanoseconds
