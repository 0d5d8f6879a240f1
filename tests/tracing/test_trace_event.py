"""Trace events of frames that the slow path handled."""

from collections import Counter

from lbmux.tracing.trace_event import note_slow_path
from tests.tracing.traced_frames import PING, event, pictured


def test_notes_what_the_slow_path_counted_for_one_frame() -> None:
    counts, ping = Counter(echo_answered=3, icmp_no_flow=1), event("ping")
    with note_slow_path(ping, counts) as note:
        counts["echo_answered"] += 1
        note.sent.append(pictured(PING))
    counts["time_exceeded"] += 1  # of another frame
    assert ping.slow is note and (note.did, note.sent) == (["echo_answered"], [pictured(PING)])
