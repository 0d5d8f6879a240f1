"""TCP traffic for the end-to-end rows: a server, and a client that measures one kind of load.

python -m bench.tcp_load serve 9000 9003
python -m bench.tcp_load connections 192.0.2.1 9000 --seconds 2
"""

import argparse
import json
import socket
import struct
import threading
import time
from collections.abc import Callable

from lbmux.daemons.process import notify

KINDS = ("connections", "requests", "upload")
THREADS = {"connections": 8, "requests": 8, "upload": 2}
CHUNK = bytes(1 << 20)
ASK, BULK = b"a", b"b"
ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER: close with a reset, so that no port stays in TIME_WAIT."""


def serve(*ports: int) -> None:
    """Answer each byte ASK with itself. After BULK, take everything to the end and answer with its length."""
    listeners = [socket.create_server(("", port), backlog=1024) for port in ports]
    threads = [threading.Thread(target=_accept, args=(listener,)) for listener in listeners]
    for thread in threads:
        thread.start()
    notify("READY=1")
    for thread in threads:
        thread.join()


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    buffer = bytearray(len(CHUNK))
    with connection:
        try:
            while count := connection.recv_into(buffer, 1):
                if buffer[:1] == BULK:
                    while more := connection.recv_into(buffer):
                        count += more
                    connection.sendall(b"%d\n" % count)
                    return
                connection.sendall(ASK)
        except ConnectionError:
            pass


def _connect(to: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(to, timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _ask(connection: socket.socket) -> None:
    connection.sendall(ASK)
    if connection.recv(1) != ASK:
        raise ConnectionError("no answer")


def connections(to: tuple[str, int], until: float, took: list[float]) -> float:
    """Open a connection for each request. Return how many there were."""
    while (begun := time.perf_counter()) < until:
        with _connect(to) as connection:
            _ask(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        took.append(time.perf_counter() - begun)
    return len(took)


def requests(to: tuple[str, int], until: float, took: list[float]) -> float:
    """Ask on one connection. Return how many requests there were."""
    with _connect(to) as connection:
        while (begun := time.perf_counter()) < until:
            _ask(connection)
            took.append(time.perf_counter() - begun)
    return len(took)


def upload(to: tuple[str, int], until: float, took: list[float]) -> float:
    """Send as much as possible. Return the gigabits that the server took."""
    with _connect(to) as connection:
        connection.sendall(BULK)
        while time.perf_counter() < until:
            connection.sendall(CHUNK)
        connection.shutdown(socket.SHUT_WR)
        return 8 * int(connection.makefile().readline()) / 1e9


USES: dict[str, Callable[[tuple[str, int], float, list[float]], float]] = {
    "connections": connections, "requests": requests, "upload": upload,
}  # fmt: skip


def load(kind: str, to: tuple[str, int], seconds: float) -> dict[str, float]:
    """Return the rate per second, and the median and 99th percentile of the times in µs, if each was measured."""
    done: list[float] = []
    took: list[list[float]] = [[] for _ in range(THREADS[kind])]
    begun = time.perf_counter()
    threads = [
        threading.Thread(target=lambda mine=mine: done.append(USES[kind](to, begun + seconds, mine))) for mine in took
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(done) < len(threads):
        raise ConnectionError("a client failed")
    rate, times = sum(done) / (time.perf_counter() - begun), sorted(one for mine in took for one in mine)
    quantiles = (0.5, 0.99) if times else ()
    return {"per_s": rate} | {f"p{round(100 * q)}_us": 1e6 * times[int(q * len(times))] for q in quantiles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("serve", *KINDS))
    parser.add_argument("where", nargs="+", metavar="ADDRESS PORT | PORT...")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    if options.kind == "serve":
        serve(*map(int, options.where))
    print(json.dumps(load(options.kind, (options.where[0], int(options.where[-1])), options.seconds)))


if __name__ == "__main__":
    main()
