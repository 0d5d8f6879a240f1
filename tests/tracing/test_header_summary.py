"""What is read from the headers of frames that scapy made."""

import pytest
from scapy.packet import Packet

from lbmux.tracing.header_summary import HeaderSummary
from tests.tracing.traced_frames import CLIENT, FRAMES, OPTIONS, PING, SYN, TAGGED, VIP, WEB6


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("syn", f"{CLIENT}:4000 > {VIP}:80 tcp [S], 40 bytes"),
        ("tagged", f"{CLIENT}:4001 > {VIP}:80 tcp [P.], 40 bytes"),
        ("options", f"{CLIENT}:4004 > {VIP}:80 tcp [S], 48 bytes"),
        ("ping", f"{CLIENT} > {VIP} icmp, 28 bytes"),
        ("later", f"{CLIENT} > {VIP} tcp, 60 bytes"),
        ("web6", "[2001:db8::7]:4003 > [2001:db8::1]:443 tcp [S], 60 bytes"),
        ("arp", "not IP, 42 bytes"),
    ],
)
def test_describes(name: str, line: str) -> None:
    assert str(HeaderSummary.read(bytes(FRAMES[name]))) == line


@pytest.mark.parametrize("frame", [SYN, TAGGED, WEB6, OPTIONS, PING])
def test_reads_a_frame_truncated_anywhere(frame: Packet) -> None:
    whole = bytes(frame)
    for length in range(len(whole)):
        assert HeaderSummary.read(whole[:length]).source in (None, HeaderSummary.read(whole).source)
