"""A prefilter passes every frame that its filter matches, and drops frames that cannot match."""

import numpy as np
import pytest

from lbmux.codegen.compiled import compiled
from lbmux.datapath.context import context_at
from lbmux.datapath.memory import at_address
from lbmux.datapath.prefilter import PREFILTER, passes, prefilter_row
from lbmux.datapath.tables import Sizes
from lbmux.datapath.verdicts import Verdict
from lbmux.targets.native import Worker, context_row
from lbmux.targets.regions import Tables
from lbmux.tracing.event_filter import parse
from lbmux.tracing.prefilter_builder import EVERYTHING, prefilter_of
from lbmux.tracing.trace_event import TraceEvent
from tests.linux.inside import Inside
from tests.tracing.traced_frames import CLIENT, FRAMES, pictured

FILTERS = [
    "", "ip", "ip6", "tcp", "udp", "icmp", "tcp port 80", "udp or icmp", "not tcp", "src port 4000", "dst port 80",
    "src port 4000 or 4001", "src port 4001 and dst port 80", "dst portrange 53-80", "dst host 192.0.2.2",
    "src host 192.0.2.2", CLIENT, f"host {CLIENT} and port 53", "src net 198.51.0.0/16 and dst 192.0.2.1",
    "src net 2001:db8::/32", "net 2001:db8::/32 and tcp port 443", "net 0.0.0.0/0", "port 4003", "service web",
    "backend web/h1 and src port 4000", "dst net 192.0.2.2/31 and udp", "(tcp port 80)",
]  # fmt: skip
ODD = {"tagged", "options", "arp"}
"""Frames with headers at unusual offsets pass every prefilter."""


@compiled
def compiled_passes(address, frame, end, prefilter):
    record = context_row(at_address(address), 0)
    record.frame, record.end = frame, end
    return passes(context_at(address), prefilter_row(at_address(prefilter), 0))


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker(Tables.allocate(Sizes(64, services=16, slots=16, backends=16, buckets=2)))


def passed(worker: Worker, text: str) -> set[str]:
    row, names = np.zeros(1, PREFILTER), set()
    for name, value in prefilter_of(text).items():
        row[name] = value
    for name, frame in FRAMES.items():
        data = np.frombuffer(bytes(frame), np.uint8)
        start = np.uint64(data.ctypes.data)
        if compiled_passes(worker.address, start, start + np.uint64(len(data)), np.uint64(row.ctypes.data)):
            names.add(name)
    return names


@pytest.mark.parametrize("text", FILTERS)
def test_passes_every_frame_that_the_filter_matches(worker: Worker, text: str) -> None:
    said = {name: (Verdict.NOT_VIP, None, None) for name in FRAMES} | {"syn": (Verdict.FORWARDED, "web", "h1")}
    test = parse(text, Inside().snapshot)
    wanted = {name for name in FRAMES if test(TraceEvent(pictured(FRAMES[name]), *said[name]))}
    assert wanted <= passed(worker, text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("udp", {"dns"}),
        ("src port 4000", {"syn"}),
        ("tcp dst port 443", {"web6"}),
        ("dst host 192.0.2.2", {"dns"}),
        ("src host 192.0.2.2", set()),
        ("host 192.0.2.2", {"dns"}),
        ("src net 2001:db8::/32", {"ping6", "web6"}),
        ("port 4003", {"web6"}),
        ("dst port 4003", set()),
        (f"src {CLIENT} and dst port 53 and udp", {"dns"}),
    ],
)
def test_drops_frames_that_cannot_match(worker: Worker, text: str, names: set[str]) -> None:
    assert passed(worker, text) - ODD == names


@pytest.mark.parametrize(
    ("text", "sent", "dropped"),
    [("tcp", 1, 1), ("drop", 0, 1), ("verdict denied and tcp", 0, 1), ("verdict forwarded", 1, 0), ("not drop", 1, 1),
     ("verdict not_vip", 0, 0)],
)  # fmt: skip
def test_verdicts_select_sent_or_dropped_frames(text: str, sent: int, dropped: int) -> None:
    assert {name: prefilter_of(text)[name] for name in EVERYTHING} == {"sent": sent, "dropped": dropped}
