"""The rows of `lbmux top`: services, backends, flows and drops, summed over the muxes.

Rates are computed per mux before they are summed, so that a mux that restarted does not distort the sums.  A mux that
does not answer may still forward in the kernel; its rates are unknown.  Sums leave it out, and are None if no mux
answers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from lbmux.api.answers import BackendLine, Key, ServiceLine
from lbmux.api.counter_rates import NO_TRAFFIC, TrafficRates, backend_rates, drop_rates, total
from lbmux.tools.top.readings import Counts, Reading

Row = dict[str, Any]
Line = TypeVar("Line", ServiceLine, BackendLine)
BITS = 8


def unknown(before: Reading, after: Reading) -> list[str]:
    """Return the muxes whose rates are unknown, because one of the two readings lacks them."""
    new = [mux for mux in after.muxes if before is not after and mux not in before.muxes]
    again = [mux for mux in after.muxes if mux in before.muted]
    return list(dict.fromkeys((*after.muted, *new, *again)))


def service_rows(before: Reading, after: Reading) -> list[Row]:
    """Return a row for each service; rates are between two readings of all muxes."""
    rates = _rates(before, after, lambda key: key[0])
    has_rates = len(unknown(before, after)) < len(after.muxes)
    return [
        {
            "service": name,
            "address": f"{lines[0][1].vip} {lines[0][1].protocol}/{lines[0][1].port}",
            "up": _all(f"{line.backends_up}/{line.backends}" for _, line in lines),
            # A service without a backend in the tables has no traffic.
            **_traffic(after, lines, rates.get(name) or [NO_TRAFFIC] * has_rates),
        }
        for name, lines in _by_name(after, lambda counts: counts.services, lambda line: line.service).items()
    ]


def backend_rows(before: Reading, after: Reading, service: str) -> list[Row]:
    """Return a row for each backend of a service; rates are between two readings of all muxes."""

    def own(counts: Counts) -> list[BackendLine]:
        return [line for line in counts.backends if line.service == service]

    rates = _rates(before, after, lambda key: key)
    return [
        {
            "backend": name,
            "dip": lines[0][1].dip,
            # None at an agent, which has no next hops.
            "state": _all(f"{line.state}, no next hop" if line.reachable is False else line.state for _, line in lines),
            "weight": lines[0][1].weight,
            **_traffic(after, lines, rates.get((service, name), [])),
        }
        for name, lines in _by_name(after, own, lambda line: line.backend).items()
    ]


def flow_rows(reading: Reading, service: str, backend: str) -> list[Row]:
    """Return the flows of a backend, with state and idle time.  Flows have no counters of their own."""
    return [
        {"client": flow.source, "port": flow.source_port, "mux": mux, "backend": flow.backend, "state": flow.state,
         "idle_s": flow.idle_s}
        for mux, counts in reading.muxes.items() if mux not in reading.muted for flow in counts.flows
        if (flow.service, flow.backend) == (service, backend)
    ]  # fmt: skip


def drops(before: Reading, after: Reading) -> dict[str, dict[str, float]]:
    """Packets dropped per second, by verdict and mux, without those that did not increase."""
    by_verdict: dict[str, dict[str, float]] = defaultdict(dict)
    for mux in _known(before, after):
        for verdict, rate in drop_rates(before.snapshot(mux), after.snapshot(mux)).items():
            by_verdict[verdict][mux] = round(rate, 1)
    return dict(by_verdict)


def _known(before: Reading, after: Reading) -> list[str]:
    left_out = unknown(before, after)
    return [mux for mux in after.muxes if mux not in left_out]


Name = TypeVar("Name")


def _rates(before: Reading, after: Reading, name: Callable[[Key], Name]) -> dict[Name, list[TrafficRates]]:
    """Return the rates of all backends at all muxes that answered both times, grouped by ``name``."""
    by_name: dict[Name, list[TrafficRates]] = defaultdict(list)
    for mux in _known(before, after):
        for key, rates in backend_rates(before.snapshot(mux), after.snapshot(mux)).items():
            by_name[name(key)].append(rates)
    return by_name


def _by_name(
    reading: Reading, lines: Callable[[Counts], Sequence[Line]], name: Callable[[Line], str]
) -> dict[str, list[tuple[str, Line]]]:
    """Each name with its lines, and the muxes that they are from."""
    by_name: dict[str, list[tuple[str, Line]]] = defaultdict(list)
    for mux, counts in reading.muxes.items():
        for line in lines(counts):
            by_name[name(line)].append((mux, line))
    return by_name


def _traffic(after: Reading, lines: Iterable[tuple[str, Line]], rates: Sequence[TrafficRates]) -> Row:
    flows = [line.live_flows for mux, line in lines if mux not in after.muted]
    summed = total(rates)
    return {
        "flows": sum(flows) if flows else None,
        "packets_s": _rounded(summed.packets),
        "bits_s": _rounded(None if summed.bytes is None else BITS * summed.bytes),
        "new_flows_s": _rounded(summed.new_flows),
    }


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 1)


def _all(texts: Iterator[str]) -> str:
    """Return the muxes' values, each distinct one once."""
    return "; ".join(dict.fromkeys(texts))
