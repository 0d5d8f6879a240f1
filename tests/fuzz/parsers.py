"""Parsers of what comes from the network or from a file, each as a function of bytes for the fuzzer.

A function returns whatever the input is, or raises the error that its parser has for bad input.  Any other exception
is a fault.
"""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from lbmux.api import requests
from lbmux.api.control_server import ControlServer
from lbmux.bgp.bgp_settings import Bgp, Peer
from lbmux.bgp.bird import parse_neighbours
from lbmux.config import loader
from lbmux.errors import LbmuxError
from lbmux.frames.capture_reader import CaptureReader
from lbmux.frames.captured_frames import CAPACITY, CapturedFrames
from lbmux.health.agent_channel import ChannelError, HealthSubscriber
from lbmux.lab import topology_file
from lbmux.slowpath import icmp_quotes, tunnels
from lbmux.slowpath.mux_slow_path import PUNTED
from lbmux.tables import flow_filter
from lbmux.tools import craft
from lbmux.tracing import event_filter
from lbmux.wire.packet import read_frame, read_ip
from tests.linux.inside import Inside
from tests.slowpath.case import Case

GUE_PORT, GENEVE_PORT = 6080, 6081
MOST_CRAFTED = 10
PEERS = Bgp(None, (Peer.parse("10.0.1.1"), Peer.parse("2001:db8::1")))


def icmp_quote(data: bytes) -> None:
    for truncated in (False, True):
        packet = read_ip(data, truncated=truncated)
        if packet is not None and packet.is_icmp:
            icmp_quotes.quote_in(packet)
            icmp_quotes.flow_of(packet)
            icmp_quotes.flow_of_own(packet)
            address = packet.destination
            icmp_quotes.translate_error(packet, address, 8080)
            icmp_quotes.translate_own_error(packet, address, 80)


def tunnel(data: bytes) -> None:
    packet = read_frame(data)
    if packet is not None:
        for is_quoted in (False, True):
            tunnels.inside(packet, GUE_PORT, GENEVE_PORT, is_quoted=is_quoted)
        tunnels.carrier(packet)


@cache
def _case() -> Case:
    return Case()


def mux_slow_path(data: bytes) -> None:
    """A frame on its way through a mux's data path, and through its slow path if it is punted."""
    ((verdict, target, after),) = _case().mux.forward(data)
    if verdict in PUNTED:
        _case().slow.handle(verdict, after, target, time.monotonic())


def bird(data: bytes) -> None:
    """What `show protocols all` and `show bfd sessions` say, separated by a null byte."""
    protocols, _, sessions = data.decode(errors="replace").partition("\0")
    parse_neighbours(protocols, sessions, PEERS, 1e9)


def configuration(data: bytes) -> None:
    loader.parse(data, Path("lbmux.yaml"))


def control_request(data: bytes) -> None:
    async def answered() -> None:
        async for answer in _server().answers(data):
            json.loads(answer)
            assert b"internal error" not in answer, answer

    asyncio.run(answered())


@cache
def _server() -> ControlServer:
    async def handler(request: requests.Request[Any]) -> str:
        return request.command

    kinds = [kind for kind in vars(requests).values() if isinstance(kind, type) and hasattr(kind, "command")]
    return ControlServer(Path("/nonexistent"), dict.fromkeys(kinds, handler))


def health_message(data: bytes) -> None:
    """A mux's end of the health channel, whose peer has no token."""

    async def received() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        await HealthSubscriber(reader, b"key").receive()

    asyncio.run(received())


def flow_words(data: bytes) -> None:
    flow_filter.parse(data.decode(errors="replace"), _snapshot())


def event_words(data: bytes) -> None:
    event_filter.parse(data.decode(errors="replace"), _snapshot())


@cache
def _snapshot() -> Any:
    return Inside().snapshot


def capture(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        with CaptureReader(Path(file.name)) as reader:
            for _ in reader.batches(CapturedFrames(CAPACITY)):
                pass


def topology(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(data)
        file.flush()
        topology_file.load(Path(file.name))


def crafted(data: bytes) -> None:
    for _ in islice(craft.craft([data.decode(errors="replace")]), MOST_CRAFTED):
        pass


PARSERS: dict[str, tuple[Callable[[bytes], None], tuple[type[Exception], ...]]] = {
    "icmp_quote": (icmp_quote, ()),
    "tunnel": (tunnel, ()),
    "mux_slow_path": (mux_slow_path, ()),
    "bird": (bird, ()),
    "configuration": (configuration, (LbmuxError,)),
    "control_request": (control_request, ()),
    "health_message": (health_message, (ChannelError,)),
    "flow_words": (flow_words, (LbmuxError,)),
    "event_words": (event_words, (LbmuxError,)),
    "capture": (capture, (LbmuxError,)),
    "topology": (topology, (LbmuxError,)),
    "crafted": (crafted, (LbmuxError,)),
}
"""Each parser with the errors that it has for bad input."""


def judge(name: str, data: bytes) -> None:
    """Parse; raise what is a fault."""
    parse, allowed = PARSERS[name]
    with contextlib.suppress(allowed):
        parse(data)
