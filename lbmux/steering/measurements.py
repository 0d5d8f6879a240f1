"""Client groups and their latencies to PoPs, as arrays, from CSV files.

A group is a prefix of client addresses. Agents report the quantiles of its round-trip times, measured on real
connections; these files contain no client's address.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lbmux.errors import ConfigError, Problem

Network = IPv4Network | IPv6Network
Floats = NDArray[np.float64]
GROUP_COLUMNS = ("prefix", "users", "resolver")
LATENCY_COLUMNS = ("prefix", "pop", "rtt_ms", "low_ms", "high_ms", "samples", "time")
Row = tuple[int, list[str]]


@dataclass(frozen=True)
class Groups:
    """``users`` above 0; ``resolvers``: the address of each group's resolver, or an empty string."""

    prefixes: tuple[Network, ...]
    users: Floats
    resolvers: tuple[str, ...]

    def find(self, wanted: Network) -> int | None:
        """Return the index of the group with the longest prefix that contains the prefix."""
        known = {prefix: at for at, prefix in enumerate(self.prefixes)}
        return next((known[one] for one in covering(wanted) if one in known), None)


@dataclass(frozen=True)
class Latency:
    """Round-trip times: ``rtt_ms`` is the median, ``low_ms`` to ``high_ms`` its 95 % interval; NaN without samples.

    The arrays have the shape (PoPs, prefixes). ``time``: the time of the newest sample, in seconds since 1970.
    """

    rows: dict[Network, int]
    """The column of each prefix."""
    rtt_ms: Floats
    low_ms: Floats
    high_ms: Floats
    samples: Floats
    time: Floats

    def recent_ms(self, now: float, max_age_s: float) -> Floats:
        """Return the medians, with NaN for those that are too old."""
        recent: Floats = np.where(now - self.time <= max_age_s, self.rtt_ms, np.nan)
        return recent


def covering(prefix: Network) -> Iterator[Network]:
    """Yield the prefix and all that contain it, the longest first."""
    for length in range(prefix.prefixlen, -1, -1):
        yield prefix.supernet(new_prefix=length)


def read_groups(path: Path) -> Groups:
    """Read the groups; raise ConfigError at the first line that cannot be used."""
    groups: dict[Network, tuple[float, str]] = {}
    for line, (prefix_text, users, resolver) in _rows(path, GROUP_COLUMNS):
        prefix = _prefix(prefix_text, path, line)
        if prefix in groups:
            raise _error(path, line, "prefix", f"{prefix} is listed twice")
        try:
            _ = resolver and ip_address(resolver)
        except ValueError as error:
            raise _error(path, line, "resolver", str(error)) from error
        number = _number(users, path, line, "users")
        if number > 0:
            groups[prefix] = number, resolver
    if not groups:
        raise ConfigError(path, (Problem(None, "", "has no group with users"),))
    users_and_resolvers = [*groups.values()]
    return Groups(
        tuple(groups), np.array([users for users, _ in users_and_resolvers]),
        tuple(resolver for _, resolver in users_and_resolvers),
    )  # fmt: skip


def read_latency(path: Path, pops: Sequence[str]) -> Latency:
    """Read the latencies; raise ConfigError at the first line that cannot be used. Unknown PoPs are ignored."""
    at_pop, texts = {name: at for at, name in enumerate(pops)}, dict[str, int]()
    rows, cells = dict[Network, int](), list[tuple[int, int]]()
    values = list[tuple[float, ...]]()
    for line, (prefix, pop, *numbers) in _rows(path, LATENCY_COLUMNS):
        if pop not in at_pop:
            continue
        if prefix not in texts:
            texts[prefix] = rows.setdefault(_prefix(prefix, path, line), len(rows))
        cells.append((at_pop[pop], texts[prefix]))
        fields = zip(numbers, LATENCY_COLUMNS[2:], strict=True)
        values.append(tuple(_number(number, path, line, name) for number, name in fields))
    arrays = np.full((len(LATENCY_COLUMNS) - 2, len(pops), len(rows)), np.nan)
    if cells:
        pop_at, row_at = np.array(cells).T
        arrays[:, pop_at, row_at] = np.array(values).T
    return Latency(rows, *arrays)


def _rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the number and the cells of each line; the first line names the columns."""
    try:
        with path.open(newline="") as file:
            reader = csv.reader(file)
            if (head := next(reader, [])) != [*columns]:
                raise _error(path, 1, "", f"should begin with the columns {','.join(columns)}, not {','.join(head)}")
            for number, cells in enumerate(reader, 2):
                if len(cells) != len(columns):
                    raise _error(path, number, "", f"has {len(cells)} columns, not {len(columns)}")
                yield number, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(path, (Problem(None, "", f"cannot be read: {error}"),)) from error


def _prefix(text: str, path: Path, line: int) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise _error(path, line, "prefix", str(error)) from error


def _number(text: str, path: Path, line: int, field: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < np.inf:
        raise _error(path, line, field, f"{text!r} is not a number of 0 or more")
    return number


def _error(path: Path, line: int, field: str, why: str) -> ConfigError:
    return ConfigError(path, (Problem(line, field, why),))
