"""What `lbmux top` shows, as data: readings of a mux's counters, and the rates between two of them."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lbmux.control.control_socket import ask, ask_stream
from lbmux.errors import LbmuxError

FORMAT = 1
MOST_FLOWS = 200
Row = dict[str, Any]


@dataclass(frozen=True)
class Reading:
    """Counters at a time (seconds since the epoch); ``flows``: of the backend that was asked for, if any."""

    time: float
    services: list[Row]
    backends: list[Row]
    verdicts: list[Row]
    flows: list[Row]

    @classmethod
    def of(cls, control: Path, service: str = "", backend: str = "") -> "Reading":
        """ControlError where nobody answers."""
        flows: list[Row] = []
        if backend:
            for part in ask_stream(
                control, "flows", filter=f"service {service} and backend {backend}", limit=MOST_FLOWS, timeout_s=10.0
            ):
                flows += part["flows"]
        services, backends = ask(control, "services")["services"], ask(control, "backends")["backends"]
        return cls(time.time(), services, backends, ask(control, "counters")["verdicts"], flows)

    def line(self) -> str:
        """As it is recorded."""
        return json.dumps({"version": FORMAT, **asdict(self)})


def recorded(path: Path) -> Iterator[Reading]:
    """The readings in a file; LbmuxError with the line that is none."""
    try:
        with path.open() as lines:
            for number, line in enumerate(lines, 1):
                try:
                    said = json.loads(line)
                    if said.pop("version") != FORMAT:
                        raise ValueError("of another version")
                    yield Reading(**said)
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    raise LbmuxError(f"{path}:{number}: no reading of `lbmux top`: {error}") from error
    except OSError as error:
        raise LbmuxError(f"{path}: {error.strerror}") from error


def service_rates(before: Reading, after: Reading) -> list[Row]:
    seconds = after.time - before.time
    earlier = {row["service"]: row for row in before.services}
    return [
        {
            "service": row["service"],
            "address": f"{row['vip']} {row['protocol']}/{row['port']}",
            "up": f"{row['backends_up']}/{row['backends']}",
            "flows": row["live_flows"],
            **_rates(earlier.get(row["service"]), row, seconds),
        }
        for row in after.services
    ]


def backend_rates(before: Reading, after: Reading, service: str) -> list[Row]:
    seconds = after.time - before.time
    earlier = {(row["service"], row["backend"]): row for row in before.backends}
    return [
        {
            "backend": row["backend"],
            "dip": row["dip"],
            "state": row["state"] if row["reachable"] else f"{row['state']}, no way",
            "weight": row["weight"],
            "flows": row["live_flows"],
            **_rates(earlier.get((service, row["backend"])), row, seconds),
        }
        for row in after.backends
        if row["service"] == service
    ]


def flow_rows(reading: Reading) -> list[Row]:
    """Flows are not counted one by one, so they have a state and an age, and no rates."""
    return [
        {"client": row["source"], "port": row["source_port"], "state": row["state"], "idle_s": row["idle_s"]}
        for row in reading.flows
    ]


def drops(before: Reading, after: Reading) -> dict[str, float]:
    """Packets dropped a second, by reason."""
    seconds = after.time - before.time
    earlier = {row["verdict"]: row["packets"] for row in before.verdicts}
    rates = {
        row["verdict"]: _rate(row["packets"], earlier.get(row["verdict"], 0), seconds)
        for row in after.verdicts
        if row["kind"] == "drop"
    }
    return {reason: rate for reason, rate in rates.items() if rate}


def _rates(before: Row | None, after: Row, seconds: float) -> Row:
    start = before or {"packets": 0, "bytes": 0, "new_flows": 0}
    return {
        "packets_s": _rate(after["packets"], start["packets"], seconds),
        "bits_s": 8 * _rate(after["bytes"], start["bytes"], seconds),
        "new_flows_s": _rate(after["new_flows"], start["new_flows"], seconds),
    }


def _rate(after: int, before: int, seconds: float) -> float:
    """Counters begin anew with new tables: then what they have is what came since."""
    return round((after - before if after >= before else after) / seconds, 1) if seconds > 0 else 0.0
