"""The kernel's counters of receiving: frames that an interface dropped, and each CPU's time in softirqs."""

import os
from pathlib import Path

DROPPED_COLUMN, SOFTIRQ_COLUMN = 3, 6
"""Columns of a line of /proc/net/dev (received packets: bytes, packets, errors, dropped) and of /proc/stat, after the
name (proc_net(5), proc_stat(5)).
"""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def dropped_frames(interface: str) -> int:
    """Return the frames that an interface of this network namespace received and dropped; 0 if there is none."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == interface:
            return int(counters.split()[DROPPED_COLUMN])
    return 0


def softirq_s() -> list[float]:
    """Return the seconds that each CPU has spent in softirqs, in steps of a clock tick."""
    lines = Path("/proc/stat").read_text().splitlines()
    cpus = [line.split() for line in lines if line.startswith("cpu") and line[3].isdigit()]
    return [int(fields[1 + SOFTIRQ_COLUMN]) / TICKS_PER_S for fields in cpus]
