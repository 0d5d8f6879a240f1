"""What `weight: auto` gains: four servers, one at half speed, with connections at 70 % of what all can serve.

A server serves ``SLOTS`` connections at once, each for its service time; the others wait in its accept queue. Clients
open connections at random times, whatever becomes of earlier ones (an open loop). The first minute is left out: weights
find their values in it.
"""

import asyncio
import functools
import random
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace

import numpy as np

from bench.report import Result
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetBackends, GetServices
from lbmux.lab.lab import Lab
from lbmux.lab.systems.ananta_wide import wide
from lbmux.lab.systems.common_nodes import SPEAKER
from lbmux.lab.topology import ECHO_PORT, SERVER_ECHO_PORT, VIP, Node, Topology

SERVERS, SLOTS, SERVICE_S, SLOW, UTILISATION = 4, 8, 0.1, 1, 0.7
"""The server ``SLOW`` takes twice the service time."""
RATE = UTILISATION * (SERVERS - 0.5) * SLOTS / SERVICE_S
FIRST_S, MEASURED_S, TIMEOUT_S, BACKLOG = 60.0, 45.0, 10.0, 1024
SEED = 17


@dataclass
class Run:
    """``latencies_s``: of connections that began after the first minute; ``weights``: the slow server's by time."""

    latencies_s: list[float] = field(default_factory=list)
    weights: list[dict[str, int]] = field(default_factory=list)
    marked: float = 0.0

    @property
    def p99_ms(self) -> float:
        return float(1000 * np.percentile(self.latencies_s, 99))


def run() -> list[Result]:
    equal, auto = measure(1), measure("auto")
    variation = max(
        max(weights) / min(weights) - 1 for name in auto.weights[0] for weights in [[one[name] for one in auto.weights]]
    )
    weights = ", ".join(map(str, auto.weights[-1].values()))
    report = functools.partial(Result, "auto_weight")
    return [
        report("99th percentile, equal weights", equal.p99_ms, "ms"),
        report("99th percentile, weight: auto", auto.p99_ms, "ms", "equal", auto.p99_ms / equal.p99_ms, "<= 0.6"),
        report("largest change of a weight after a minute", 100 * variation, "%", goal="<= 10", note=f"now {weights}"),
        report("marked slots at the end", 100 * auto.marked, "%", note="`flows: changed`"),
    ]


def measure(weight: int | str) -> Run:
    """Bring up a mux and four hosts whose backends all have this weight, and send connections."""
    with tempfile.NamedTemporaryFile("w") as token:
        token.write(random.randbytes(16).hex())
        token.flush()
        lab = Lab(_topology(weight, token.name), "benchweight")
        lab.down()
        try:
            lab.up(programs=False)
            servers = _Servers(lab)
            servers.start()
            lab.start_programs()
            found = Run()
            _observe(
                lab, found, threading.Thread(target=lab.inside, args=("client", lambda: _clients(found)), daemon=True)
            )
            return found
        finally:
            lab.down()


def _topology(weight: int | str, token: str) -> Topology:
    plain = wide(*SPEAKER, "--health-token", token, hosts=SERVERS, mux_count=1)
    (service,) = plain.config["services"]
    health = service["health"] | {"by": "agent", "interval_s": 1.0}
    backends = [one | {"weight": weight} for one in service["backends"]]
    config = plain.config | {"services": [service | {"health": health, "flows": "changed", "backends": backends}]}
    return replace(plain, nodes=tuple(_with_token(node, token) for node in plain.nodes), config=config)


def _with_token(node: Node, token: str) -> Node:
    """Return a host with its agent only: the servers are this bench's own."""
    agents = [one for one in node.programs if one.name == "agent"]
    if not agents:
        return node
    programs = tuple(replace(one, arguments=(*one.arguments, "--health-token", token)) for one in agents)
    return replace(node, programs=programs)


class _Servers(threading.Thread):
    """All servers, in one event loop; their sockets are in the hosts' namespaces."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(daemon=True)
        self._listening = [
            lab.inside(
                f"host{n}", functools.partial(socket.create_server, (f"10.1.{n}.2", SERVER_ECHO_PORT), backlog=BACKLOG)
            )
            for n in range(1, SERVERS + 1)
        ]

    def run(self) -> None:
        async def serve() -> None:
            times = [SERVICE_S * (2 if n == SLOW else 1) for n in range(1, SERVERS + 1)]
            await asyncio.gather(*map(_serve, self._listening, times))

        asyncio.run(serve())


async def _serve(listening: socket.socket, service_s: float) -> None:
    """Accept a connection only while a slot is free."""
    loop, slots, tasks = asyncio.get_running_loop(), asyncio.Semaphore(SLOTS), set[asyncio.Task[None]]()
    listening.setblocking(False)

    async def answer(connection: socket.socket) -> None:
        try:
            await asyncio.sleep(service_s)
            await loop.sock_sendall(connection, b"answer\n")
        except OSError:
            pass
        finally:
            connection.close()
            slots.release()

    while True:
        await slots.acquire()
        connection, _ = await loop.sock_accept(listening)
        tasks.add(task := asyncio.create_task(answer(connection)))
        task.add_done_callback(tasks.discard)


def _clients(found: Run) -> None:
    """Open connections in the client's namespace until the time is over."""
    asyncio.run(_open_loop(found))


async def _open_loop(found: Run) -> None:
    dice, tasks = random.Random(SEED), list[asyncio.Task[None]]()
    begun = due = time.monotonic()
    while due - begun < FIRST_S + MEASURED_S:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(_request(due, found if due - begun > FIRST_S else None)))
        due += dice.expovariate(RATE)
    await asyncio.gather(*tasks)


async def _request(due: float, found: Run | None) -> None:
    """Take the time from when the connection was due to its answer; one without an answer takes the whole time-out."""
    try:
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + TIMEOUT_S):
            reader, writer = await asyncio.open_connection(VIP, ECHO_PORT)
            await reader.readexactly(7)
            writer.close()
        taken_s = time.monotonic() - due
    except (OSError, TimeoutError, EOFError):
        taken_s = TIMEOUT_S
    if found is not None:
        found.latencies_s.append(taken_s)


def _observe(lab: Lab, found: Run, clients: threading.Thread) -> None:
    """Read the weights in force once a second, and the marked slots at the end."""
    client = ControlClient(lab.directory / "mux1.sock")
    while len(client.whole(GetBackends()).backends) < SERVERS:  # a backend that is not up yet is not in the tables
        time.sleep(0.1)
    clients.start()
    begun = time.monotonic()
    while clients.is_alive():
        clients.join(1)
        if time.monotonic() - begun > FIRST_S:
            found.weights.append({one.backend: one.weight for one in client.whole(GetBackends()).backends})
    (service,) = client.whole(GetServices()).services
    found.marked = service.marked_slots / service.slots
