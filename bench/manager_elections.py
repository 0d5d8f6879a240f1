"""The time without a primary: managers and members of etcd as processes on loopback, some of which are killed.

Each row is the longest of several turns, from the first SIGKILL to another manager that says that it is primary. The
primary is always one of the killed. Whether etcd's leader is, too, is arranged before.
"""

import json
import random
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from bench.manager_processes import ManagerPool, managers_running
from bench.report import Result

MANAGERS, TURNS = 5, 5
CASES = {
    "the primary": (False, False, 3000),
    "the primary, another manager, and their members": (True, False, 3000),
    "the primary, another manager, and their members, one of which leads etcd": (True, True, 5000),
}
"""Whether members are killed, whether etcd's leader is, and the goal in ms."""
SETTLED_S, RETRY_S = 30.0, 0.1


def run() -> list[Result]:
    """Return no rows if etcd is not installed."""
    if shutil.which("etcd") is None:
        return []
    with managers_running("etcd", MANAGERS) as pool:
        return list(_rows(pool))


def _rows(pool: ManagerPool) -> Iterator[Result]:
    for name, (with_members, with_leader, goal) in CASES.items():
        times = [_turn(pool, with_members, with_leader) for _ in range(TURNS)]
        what = f"etcd, {MANAGERS} managers: until another is primary, after kill -9 of {name}"
        yield Result("manager", f"{what}, longest of {TURNS}", max(times), "ms", goal=f"<= {goal}")


def _turn(pool: ManagerPool, with_members: bool, with_leader: bool) -> float:
    """Kill the primary, and with members also another manager; return the time until there is a primary, in ms."""
    first = pool.managers.index(pool.primary()[1])
    leader = _leader(pool)
    others = [at for at in range(MANAGERS) if at not in (first, leader)]
    if not with_leader and leader == first:
        leader = _move_leader(pool, leader, others.pop())
    second = leader if with_leader and leader != first else random.choice([at for at in others if at != leader])
    victims = [pool.managers[first]]
    if with_members:
        victims += [pool.members[first], pool.managers[second], pool.members[second]]
    begun = time.monotonic()
    for one in victims:
        one.kill()
    pool.primary()
    took_ms = 1000 * (time.monotonic() - begun)
    for one in reversed(victims):
        one.start()
    _wait_until_whole(pool)
    return took_ms


def _wait_until_whole(pool: ManagerPool) -> None:
    """Wait until all members follow a leader and all managers answer."""
    deadline = time.monotonic() + SETTLED_S
    while not (all(_status(one) for one in pool.clients) and pool.answer()):
        assert time.monotonic() < deadline, "the pool does not come back"
        time.sleep(RETRY_S)


def _leader(pool: ManagerPool) -> int:
    """Return which member leads etcd."""
    deadline = time.monotonic() + SETTLED_S
    while time.monotonic() < deadline:
        for at, status in enumerate(map(_status, pool.clients)):
            if status is not None and status["leader"] == status["header"]["member_id"]:
                return at
        time.sleep(RETRY_S)
    raise AssertionError("etcd has no leader")


def _move_leader(pool: ManagerPool, leader: int, to: int) -> int:
    target = _status(pool.clients[to])
    assert target is not None  # all members run
    _ask(pool.clients[leader], "transfer-leadership", {"targetID": target["header"]["member_id"]})
    return _leader(pool)


def _status(client: str) -> dict[str, Any] | None:
    """Return the status of a member that has a leader."""
    with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
        status = _ask(client, "status", {})
        return status if status.get("leader", "0") != "0" else None
    return None


def _ask(client: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(f"http://{client}/v3/maintenance/{what}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=2) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
