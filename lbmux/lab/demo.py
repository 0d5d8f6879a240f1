"""The demo: real TCP through router, muxes and agents, with expected against observed results.

It builds a lab of the built-in topology, and takes it down afterwards.
"""

import contextlib
import copy
import hashlib
import http.client
import json
import math
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from lbmux.api.control_client import ControlClient
from lbmux.api.requests import Reload
from lbmux.errors import ControlError, LabError
from lbmux.lab import processes
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import byte_counters, set_route
from lbmux.lab.test_server import PATTERN, body_digest
from lbmux.lab.topology import ECHO_PORT, VIP, VIP6, WEB_PORT, Route
from lbmux.lab.traffic_client import Client, traffic
from lbmux.wire.numbers import TCP_PROTOCOL
from lbmux.wire.packet import read_ip

TRANSFER_BYTES = 50_000_000
MEGABYTES = TRANSFER_BYTES // 10**6
TRANSFER_TIMEOUT_S = 20
NEW_CONNECTIONS = 300
HELD_CONNECTIONS = 50
SETTLE_S = 2.0
"""Seconds that connections are watched after a change."""
DEVIATIONS = 4.0
ETH_P_ALL = 0x0003
COMPILING = "; compiling (once)…"
MUXES, HOSTS = ("mux1", "mux2"), ("host1", "host2", "host3")
KILLED, LEFT = MUXES


@dataclass(frozen=True)
class Row:
    """One expectation and its observed result."""

    what: str
    expected: str
    seen: str
    holds: bool


def run(lab: Lab, *, keep: bool, as_json: bool) -> int:
    """Run the demo on a new lab.  Returns 0 if every row holds, else 1."""
    progress, start, rows = Console(stderr=True), time.monotonic(), []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # lets timeout(1) remove the lab too
    try:
        with progress.status(f"building the lab{COMPILING if lab.compiles else ''}") as status:
            lab.existing(lab.name, lab.topology).down()
            lab.up()
            for row in story(lab, lambda text: status.update(text)):
                rows.append(row)
    finally:
        if not keep:
            lab.down()
    _print(rows, time.monotonic() - start, as_json)
    return 0 if all(row.holds for row in rows) else 1


def story(lab: Lab, say: Callable[[str], None]) -> Iterator[Row]:
    """Run all steps in order and yield their rows."""
    say(f"downloading {MEGABYTES} MB")
    yield from download(lab)
    say(f"uploading {MEGABYTES} MB")
    yield upload(lab)
    say(f"opening {NEW_CONNECTIONS} connections")
    yield from spread(lab, "web", NEW_CONNECTIONS)
    say("the same over IPv6")
    yield _digests(f"download of {MEGABYTES} MB over IPv6", *_downloaded(lab, VIP6))
    yield upload(lab, VIP6, " over IPv6")
    yield from spread(lab, "web6", NEW_CONNECTIONS)
    with traffic(lab, "client", VIP, ECHO_PORT, "--connections", str(HELD_CONNECTIONS)) as client:
        say(f"killing {KILLED} under {HELD_CONNECTIONS} connections")
        yield from lose_a_mux(lab, client)
        say("adding a backend")
        yield from add_a_backend(lab, client)


def download(lab: Lab) -> Iterator[Row]:
    """Download a large file, and yield rows about its contents and its path."""
    before = {node: _bytes(lab, node) for node in ("client", *MUXES)}
    digests = _downloaded(lab, VIP)
    after = {node: _bytes(lab, node) for node in before}
    received = after["client"][0] - before["client"][0]
    through = sum(after[mux][0] - before[mux][0] for mux in MUXES)
    sent = after["client"][1] - before["client"][1]
    yield _digests(f"download of {MEGABYTES} MB", *digests)
    yield Row(
        "replies bypass the muxes",
        f"client received ≥ {_mb(TRANSFER_BYTES)}; muxes (requests and ACKs only) < {_mb(TRANSFER_BYTES / 10)}",
        f"client received {_mb(received)}, sent {_mb(sent)}; muxes received {_mb(through)}",
        received >= TRANSFER_BYTES and 0 < through < TRANSFER_BYTES / 10,
    )


def _downloaded(lab: Lab, vip: str) -> tuple[str, str]:
    """Return (expected digest, observed digest)."""
    answer = _curl(lab, vip, f"/bytes/{TRANSFER_BYTES}")
    return body_digest(TRANSFER_BYTES), hashlib.sha256(answer).hexdigest()


def upload(lab: Lab, vip: str = VIP, how: str = "") -> Row:
    whole, rest = divmod(TRANSFER_BYTES, len(PATTERN))
    answer = _curl(lab, vip, "/digest", "--upload-file", "-", input=PATTERN * whole + PATTERN[:rest])
    seen = answer.decode(errors="replace")
    return _digests(f"upload of {MEGABYTES} MB{how}", body_digest(TRANSFER_BYTES), seen)


def spread(lab: Lab, service: str, count: int) -> Iterator[Row]:
    """Open new connections in turn: each backend's share follows its weight."""
    ask_name = {"web": _whoami, "web6": lambda: _whoami(VIP6), "echo": _echo}[service]
    names = lab.inside("client", lambda: Counter(ask_name() for _ in range(count)))
    weights = {b["name"]: b["weight"] for b in _service(lab.config_in_force, service)["backends"]}
    for name in sorted(names.keys() | weights.keys()):
        share = weights.get(name, 0) / sum(weights.values())
        mean, bound = count * share, DEVIATIONS * math.sqrt(count * share * (1 - share))
        yield Row(
            f"{count} new {service} connections: {name}",
            f"weight {weights.get(name, 0)}: {mean:.0f} ± {bound:.0f}",
            f"{names[name]}",
            abs(names[name] - mean) <= bound,
        )


def lose_a_mux(lab: Lab, client: Client) -> Iterator[Row]:
    """Kill a mux and route around it: the other has the same table."""
    ports = {connection["local_port"] for connection in client.first["connections"]}
    through = _connections_through(lab, ports)
    yield Row(
        f"{HELD_CONNECTIONS} connections, before",
        f"some through {KILLED}, some through {LEFT}",
        ", ".join(f"{count} through {mux}" for mux, count in through.items()),
        sum(through.values()) == HELD_CONNECTIONS and all(through.values()),
    )
    before = client.report()
    processes.kill(lab.process(KILLED, "mux"), signal.SIGKILL)
    lab.inside("router", lambda: set_route(Route(f"{VIP}/32", (lab.topology.port(LEFT).ip,))))
    time.sleep(SETTLE_S)
    yield _go_on(f"{KILLED} is killed", before, client.report())
    through = _connections_through(lab, ports)
    yield Row(
        f"{HELD_CONNECTIONS} connections, afterwards",
        f"all through {LEFT}",
        ", ".join(f"{count} through {mux}" for mux, count in through.items()),
        through == {KILLED: 0, LEFT: HELD_CONNECTIONS},
    )


def add_a_backend(lab: Lab, client: Client) -> Iterator[Row]:
    """Change the backends: old connections stay, new ones spread over all."""
    config = copy.deepcopy(lab.config_in_force)
    port = lab.topology.port("host3")
    _service(config, "echo")["backends"].append({"name": "h3", "dip": port.ip, "port": ECHO_PORT, "weight": 1})
    before = client.report()
    lab.write_config(config)
    # Agents first: they must know a backend before a mux sends packets to it.
    changes = {node: reload(lab, node) for node in (*HOSTS, LEFT)}
    time.sleep(SETTLE_S)
    added = ["service echo: backend h3 added"]
    yield Row(
        "reload of agents and mux", added[0], "; ".join(sorted({c for said in changes.values() for c in said})),
        all(said == added for said in changes.values()),
    )  # fmt: skip
    yield _go_on("h3 is added", before, client.report())
    yield from spread(lab, "echo", NEW_CONNECTIONS)


def reload(lab: Lab, node: str) -> list[str]:
    """Return the changes that a node's daemon reports for a reload."""
    try:
        return ControlClient(lab.directory / f"{node}.sock").ask(Reload()).changes
    except ControlError as error:
        return str(error).splitlines()


def _connections_through(lab: Lab, ports: set[int]) -> dict[str, int]:
    """Return how many of the client's ports the router sends to each mux."""

    def seen(mux: str) -> set[int]:
        return lab.inside("router", lambda: ports_seen(f"to-{mux}", ECHO_PORT, 0.5))

    return {mux: len(seen(mux) & ports) for mux in MUXES}


def ports_seen(interface: str, destination_port: int, seconds: float) -> set[int]:
    """Return source ports of TCP packets to a port that leave by an interface of this namespace within ``seconds``."""
    ports, deadline = set(), time.monotonic() + seconds
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:  # protocol 0: no frames until bind
        sock.bind((interface, ETH_P_ALL))
        while (left := deadline - time.monotonic()) > 0:
            if select.select([sock], [], [], left)[0]:
                packet, origin = sock.recvfrom(65536)
                tcp = read_ip(packet) if origin[2] == socket.PACKET_OUTGOING else None
                if tcp is not None and tcp.protocol == TCP_PROTOCOL and tcp.ports is not None:
                    source, destination = tcp.ports
                    if destination == destination_port:
                        ports.add(source)
    return ports


def _go_on(what: str, before: dict[str, Any], after: dict[str, Any]) -> Row:
    """Return a row for connections, which survive if their own backend has answered since."""
    pairs = list(zip(before["connections"], after["connections"], strict=True))
    fine = [b for a, b in pairs if not b["broken"] and b["lines"] > a["lines"] and b["backend"] == a["backend"]]
    reasons = Counter(b["broken"] or "stuck" for _, b in pairs if b not in fine)
    stall_ms = max(b["longest_stall_ms"] for _, b in pairs)
    seen = f"{len(fine)} survive, longest stall {stall_ms:.0f} ms"
    seen += "".join(f"; {count} {reason}" for reason, count in reasons.items())
    return Row(
        f"{what} under {len(pairs)} connections", f"{HELD_CONNECTIONS} survive, each with its backend", seen,
        len(fine) == HELD_CONNECTIONS,
    )  # fmt: skip


def _curl(lab: Lab, vip: str, path: str, *options: str, **more: Any) -> bytes:
    url = f"http://{f'[{vip}]' if ':' in vip else vip}:{WEB_PORT}{path}"
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", str(TRANSFER_TIMEOUT_S), *options, url]
    try:
        ran = lab.run("client", command, capture_output=True, **more)
    except FileNotFoundError as error:
        raise LabError("client", "curl: not found") from error
    return bytes(ran.stdout if ran.returncode == 0 else ran.stderr.strip())


def _digests(what: str, expected: str, seen: str) -> Row:
    return Row(what, f"SHA-256 {expected[:16]}…", f"SHA-256 {seen[:16]}…", seen == expected)


def _whoami(vip: str = VIP) -> str:
    with contextlib.closing(http.client.HTTPConnection(vip, WEB_PORT, timeout=5)) as connection:
        try:
            connection.request("GET", "/whoami")
            return connection.getresponse().read().decode()
        except OSError as error:
            return error.strerror or str(error)


def _echo() -> str:
    try:
        with socket.create_connection((VIP, ECHO_PORT), timeout=5) as connection, connection.makefile("rw") as lines:
            lines.write("hello\n")
            lines.flush()
            return lines.readline().partition(" ")[0]
    except OSError as error:
        return error.strerror or str(error)


def _service(config: dict[str, Any], name: str) -> dict[str, Any]:
    return next(service for service in config["services"] if service["name"] == name)


def _bytes(lab: Lab, node: str) -> tuple[int, int]:
    return lab.inside(node, lambda: byte_counters("eth0"))


def _mb(length_bytes: float) -> str:
    return f"{length_bytes / 1e6:.2f} MB"


def _print(rows: list[Row], seconds: float, as_json: bool) -> None:
    if as_json:
        holds = all(row.holds for row in rows)
        print(json.dumps({"holds": holds, "seconds": round(seconds, 1), "rows": [asdict(row) for row in rows]}))
        return
    table = Table(title=f"{sum(row.holds for row in rows)} of {len(rows)} as expected, in {seconds:.0f} s")
    for column in ("what", "expected", "seen", ""):
        table.add_column(column)
    for row in rows:
        table.add_row(row.what, row.expected, row.seen, "[green]yes" if row.holds else "[bold red]NO")
    Console().print(table)
