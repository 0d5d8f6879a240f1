"""Rates between two readings: services, backends and drops, each summed over the muxes.

Counters are compared per mux before they are summed, so that a mux that restarted does not distort the sums.  A mux
that does not answer may still forward in the kernel; its rates are unknown.  Sums leave it out, and are None if no mux
answers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lbmux.tools.top.readings import Counts, Reading, Row

COUNTERS = {"packets_s": ("packets", 1), "bits_s": ("bytes", 8), "new_flows_s": ("new_flows", 1)}
"""Each rate's counter, and the units per count."""


def unknown(before: Reading, after: Reading) -> list[str]:
    """The muxes whose rates are unknown, because one of the two readings lacks them."""
    new = [mux for mux in after.muxes if before is not after and mux not in before.muxes]
    again = [mux for mux in after.muxes if mux in before.muted]
    return list(dict.fromkeys((*after.muted, *new, *again)))


def service_rates(before: Reading, after: Reading) -> list[Row]:
    pairs = _pairs(before, after, lambda counts: counts.services, lambda row: row["service"])
    return [
        {
            "service": name,
            "address": f"{rows[0]['vip']} {rows[0]['protocol']}/{rows[0]['port']}",
            "up": _all(f"{row['backends_up']}/{row['backends']}" for row in rows),
            **rates,
        }
        for name, rows, rates in pairs
    ]


def backend_rates(before: Reading, after: Reading, service: str) -> list[Row]:
    def own(counts: Counts) -> list[Row]:
        return [row for row in counts.backends if row["service"] == service]

    return [
        {
            "backend": name,
            "dip": rows[0]["dip"],
            # None at an agent, which has no next hops.
            "state": _all(
                f"{row['state']}, no next hop" if row["reachable"] is False else row["state"] for row in rows
            ),
            "weight": rows[0]["weight"],
            **rates,
        }
        for name, rows, rates in _pairs(before, after, own, lambda row: row["backend"])
    ]


def flow_rows(reading: Reading, service: str, backend: str) -> list[Row]:
    """The flows of a backend, with state and idle time.  Flows have no counters of their own."""
    return [
        {"client": row["source"], "port": row["source_port"], "mux": mux, "backend": row["backend"],
         "state": row["state"], "idle_s": row["idle_s"]}
        for mux, counts in reading.muxes.items() if mux not in reading.muted for row in counts.flows
        if (row["service"], row["backend"]) == (service, backend)
    ]  # fmt: skip


def drops(before: Reading, after: Reading) -> dict[str, dict[str, float]]:
    """Packets dropped per second, by verdict and mux, without those that did not increase."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    seconds = after.time - before.time
    left_out = unknown(before, after)
    for mux, counts in after.muxes.items():
        if mux in left_out:
            continue
        earlier = {row["verdict"]: row["packets"] for row in before.muxes.get(mux, counts).verdicts}
        for row in counts.verdicts:
            count = _since(earlier.get(row["verdict"], 0), row["packets"]) if row["kind"] == "drop" else 0
            if count and seconds > 0:
                found[row["verdict"]][mux] = round(count / seconds, 1)
    return dict(found)


def _pairs(
    before: Reading, after: Reading, rows: Callable[[Counts], list[Row]], key: Callable[[Row], str]
) -> Iterator[tuple[str, list[Row], Row]]:
    """Yield each name with its rows (one per mux) and its rates and flows, which are None if no mux answers."""
    found: dict[str, list[tuple[str, Row, Row]]] = defaultdict(list)
    for mux, counts in after.muxes.items():
        earlier = {key(row): row for row in rows(before.muxes.get(mux, counts))}
        for row in rows(counts):
            found[key(row)].append((mux, earlier.get(key(row), {}), row))
    seconds, left_out = after.time - before.time, unknown(before, after)
    for name, lines in found.items():
        pairs = [(old, row) for mux, old, row in lines if mux not in left_out]
        rates = {rate: _rate(pairs, counter, units, seconds) for rate, (counter, units) in COUNTERS.items()}
        flows = [row["live_flows"] for mux, _, row in lines if mux not in after.muted]
        yield name, [row for _, _, row in lines], {"flows": sum(flows) if flows else None, **rates}


def _rate(pairs: Sequence[tuple[Row, Row]], counter: str, units: int, seconds: float) -> float | None:
    """None if the counter does not exist: an agent does not count traffic by backend."""
    known = [(before.get(counter) or 0, after[counter]) for before, after in pairs if after[counter] is not None]
    if not known:
        return None
    return round(units * sum(_since(*pair) for pair in known) / seconds, 1) if seconds > 0 else 0.0


def _since(before: int, after: int) -> int:
    """The increase of a counter.  A counter that went back was reset with new tables."""
    return after - before if after >= before else after


def _all(said: Iterator[Any]) -> str:
    """The muxes' values, each distinct one once."""
    return "; ".join(dict.fromkeys(said))
