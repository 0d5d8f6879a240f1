"""Time to the first byte of an HTTPS request: directly to a data centre, and through a PoP near the user.

The lab's network has round-trip times of 150 ms to the data centre, 20 ms to the PoP, and 130 ms between the two. A
cold PoP has just started its proxies, which must first connect to the data centre; a warm PoP has connections. The
other rows are for the next request on a user's connection.
"""

import contextlib
import re
import signal
import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from functools import partial

from bench.report import Result
from lbmux.lab import processes
from lbmux.lab.lab import Lab
from lbmux.lab.scoreboard.global_state import proxies, runtime, worker
from lbmux.lab.systems.facebook_global import HTTPS_PORT, NAME, centre, facebook_global, pop

VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}
SAMPLES, WARM_UP, TIMEOUT_S = 7, 12, 10.0
REQUEST = f"GET /whoami HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
WHOLE = re.compile(rb"content-length: (\d+)\r\n.*?\r\n\r\n", re.S | re.I)
"""The end of an answer's headers, with the length of its body."""
CENTRE, POP = centre(1).vips[0], pop(1).vips[0]


def run() -> list[Result]:
    lab = Lab(facebook_global(1, 1, 1, hosts=1), "benchfirst")
    lab.down()
    try:
        lab.up()
        return [Result("first_byte", name, value, "ms") for name, value in _measured(lab)]
    finally:
        lab.down()


def _measured(lab: Lab) -> Iterator[tuple[str, float]]:
    for address in (CENTRE, POP):
        _wait_until_served(lab, address)
    for name, version in VERSIONS.items():
        ask = partial(_first_bytes_ms, version)
        yield f"{name}: new connection to the data centre", _median(lab, partial(ask, CENTRE))
        yield f"{name}: new connection to a cold PoP", statistics.median(_cold_ms(lab, ask) for _ in range(SAMPLES))
        for _ in range(WARM_UP):
            lab.inside("users1", partial(ask, POP))
        yield f"{name}: new connection to a warm PoP", _median(lab, partial(ask, POP))
        yield f"{name}: next request, data centre", _median(lab, partial(ask, CENTRE), 1)
        yield f"{name}: next request, PoP", _median(lab, partial(ask, POP), 1)


def _median(lab: Lab, ask: "partial[list[float]]", nth: int = 0) -> float:
    return statistics.median(lab.inside("users1", ask)[nth] for _ in range(SAMPLES))


def _cold_ms(lab: Lab, ask: "partial[list[float]]") -> float:
    """Reload the PoP's proxies, which drops their connections to the data centre, and send one request."""
    for api in proxies(lab, "pop1"):
        before = worker(api)
        processes.kill(lab.process(api.name.removesuffix("-haproxy.sock"), "haproxy"), signal.SIGUSR2)
        end = time.monotonic() + TIMEOUT_S
        while worker(api) in (0, before) or "UP" not in runtime(api, "show stat upstream 4 -1"):
            assert time.monotonic() < end
            time.sleep(0.02)
    return lab.inside("users1", partial(ask, POP))[0]


def _first_bytes_ms(version: ssl.TLSVersion, address: str) -> list[float]:
    """Return the times to the first byte of two requests, the first one with connection and handshake."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    begun, times_ms = time.monotonic(), []
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection((address, HTTPS_PORT), TIMEOUT_S))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the request waits for an acknowledgment
        sock = stack.enter_context(context.wrap_socket(plain, server_hostname=NAME))
        for _ in range(2):
            sock.sendall(REQUEST)
            answer = sock.recv(1)
            times_ms.append(1000 * (time.monotonic() - begun))
            while not (whole := WHOLE.search(answer)) or len(answer) < whole.end() + int(whole[1]):
                answer += sock.recv(65536)
            begun = time.monotonic()
    return times_ms


def _wait_until_served(lab: Lab, address: str) -> None:
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            lab.inside("users1", partial(_first_bytes_ms, ssl.TLSVersion.TLSv1_3, address))
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.1)
