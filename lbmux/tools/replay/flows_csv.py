"""The flows of a replay as CSV: one row for each flow to a VIP, in the order of their first packets."""

import csv
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TextIO

from lbmux.addresses import from_pair, port_from_wire
from lbmux.tools.replay.captured_flows import BROKEN, LOST
from lbmux.tools.replay.replay_pool import ReplayPool
from lbmux.wire.numbers import TCP_PROTOCOL

COLUMNS = (
    "protocol", "source", "source_port", "vip", "port", "service", "backends", "first_s", "last_s", "packets", "bytes",
    "broken", "lost",
)  # fmt: skip
"""``backends``: names in the order in which the flow had them, separated by spaces. ``first_s`` and ``last_s`` count
from the capture's first packet. ``bytes`` are those of the captured frames. ``broken`` and ``lost``: true or false."""

FIELDS = (
    "protocol", "source_high", "source_low", "destination_high", "destination_low", "ports", "service", "first_ns",
    "last_ns", "packets", "bytes", "seen",
)  # fmt: skip


def write(file: TextIO, pool: ReplayPool, start_ns: int) -> None:
    """Write a header and the flows. ``start_ns``: the time of the capture's first packet."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_rows(pool, start_ns))


def _rows(pool: ReplayPool, start_ns: int) -> Iterator[tuple[Any, ...]]:
    address = lru_cache(1 << 16)(lambda high, low: str(from_pair(high, low)))
    names = [backend for _, backend in pool.outcomes.names]
    # Convert to lists: reading fields of NumPy records would cost more than everything else here.
    columns = (pool.flows.records[name].tolist() for name in FIELDS)
    for backends, protocol, high, low, to_high, to_low, ports, service, first_ns, last_ns, packets, size, seen in zip(
        pool.outcomes.backends(), *columns, strict=True
    ):
        yield (
            "tcp" if protocol == TCP_PROTOCOL else "udp",
            address(high, low),
            port_from_wire(ports & 0xFFFF),
            address(to_high, to_low),
            port_from_wire(ports >> 16),
            pool.services[service],
            " ".join([names[backend] for backend in backends]),
            _seconds(first_ns - start_ns),
            _seconds(last_ns - start_ns),
            packets,
            size,
            *("true" if seen & bit else "false" for bit in (BROKEN, LOST)),
        )


def _seconds(time_ns: int) -> str:
    return f"{time_ns / 1e9:.6f}"
