"""Answers of daemons on the control socket, as frozen dataclasses; lbmux.api.requests has the requests.

Fields are the JSON fields of `lbmux show -j`.  Counters count since the tables were made; bytes include outer headers.
"""

from lbmux.api.answers.bgp_answers import Bgp, BgpNeighbour
from lbmux.api.answers.health_answers import BackendHealth, Health, HealthLine, Overridden
from lbmux.api.answers.history_answers import History, HistoryEvent, HistoryPoint
from lbmux.api.answers.program_answer import Key, ProgramAnswer
from lbmux.api.answers.reload_answers import Planned, Reloaded
from lbmux.api.answers.round_trip_answers import RoundTripLine, RoundTrips
from lbmux.api.answers.runtime_answers import (
    Admitted,
    BlackHole,
    HostForwarding,
    Layout,
    Overload,
    Paroled,
    Runtime,
    TableSize,
)
from lbmux.api.answers.trace_answers import SentFrame, SlowPathReport, TraceBatch, TracedFrame, TraceStart
from lbmux.api.answers.traffic_answers import (
    BackendLine,
    Backends,
    ConnectionCounts,
    Counters,
    FlowCount,
    FlowLine,
    Flows,
    NeighbourLine,
    Neighbours,
    ServiceLine,
    Services,
    VerdictLine,
)

__all__ = [
    "Admitted",
    "BackendHealth",
    "BackendLine",
    "Backends",
    "Bgp",
    "BgpNeighbour",
    "BlackHole",
    "ConnectionCounts",
    "Counters",
    "FlowCount",
    "FlowLine",
    "Flows",
    "Health",
    "HealthLine",
    "History",
    "HistoryEvent",
    "HistoryPoint",
    "HostForwarding",
    "Key",
    "Layout",
    "NeighbourLine",
    "Neighbours",
    "Overload",
    "Overridden",
    "Paroled",
    "Planned",
    "ProgramAnswer",
    "Reloaded",
    "RoundTripLine",
    "RoundTrips",
    "Runtime",
    "SentFrame",
    "ServiceLine",
    "Services",
    "SlowPathReport",
    "TableSize",
    "TraceBatch",
    "TraceStart",
    "TracedFrame",
    "VerdictLine",
]
