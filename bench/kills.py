"""``python -m bench.kills --store sqlite|etcd --seconds 300``: are acknowledged revisions there after random kills?

Managers, and the members of an etcd cluster, are killed (SIGKILL) at random and started again, while a client applies
one revision after the other. At the end each revision that was acknowledged must be there with its message. With SQLite
there is one manager; with etcd there are three, and three members. All files are in memory (/dev/shm), which a kill
does not empty.
"""

import argparse
import asyncio
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lbmux.lab.pool_member import etcd_command
from lbmux.lab.processes import python
from lbmux.manager.admission import make_pool
from lbmux.manager.api_client import ApiClient, ApiError, trusting
from lbmux.manager.api_models import ApplyAnswer, ApplyRequest, RevisionsAnswer, StatusAnswer
from lbmux.manager.authority import KeyPair, Subject, issue, new_key, new_request
from lbmux.manager.identity import Identity
from lbmux.manager.records import KEPT_REVISIONS
from lbmux.manager.store.open_store import open_store
from lbmux.manager.store.store import UnavailableError

REPLICAS = 3
START_S, REQUEST_S = 60.0, 6.0
PAUSES_S, DEAD_S = (0.0, 1.0), (0.0, 0.7)
"""From a revision that was acknowledged to the next kill, and until what was killed starts again: bounds of times."""
PROGRESS_S = 20.0
"""Longest wait for that revision, in seconds."""


@dataclass
class Program:
    """A manager or a member, which may be killed and started again."""

    name: str
    command: Sequence[str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    kills: int = 0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Outcome:
    """What a run found; ``lost``: acknowledged revisions that are not there, with their messages."""

    acknowledged: dict[int, str] = field(default_factory=dict)
    unanswered: int = 0
    longest_s: float = 0.0
    """The longest time between two acknowledgements."""
    kills: dict[str, int] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {count}" for name, count in self.kills.items())
        return (
            f"{len(self.acknowledged)} revisions acknowledged, {len(self.lost)} of them lost; {self.unanswered} "
            f"requests failed; at most {self.longest_s:.1f} s between two acknowledgements; kills: {kills}"
        )


def run(store: str, seconds: float, seed: int = 1, report: Callable[[str], None] = print) -> Outcome:
    """Kill and apply for a time; raise AssertionError if the pool does not come back."""
    with tempfile.TemporaryDirectory(prefix="lbmux-kills-", dir="/dev/shm") as name, ExitStack() as stack:
        directory, count = Path(name), 1 if store == "sqlite" else REPLICAS
        ends = [f"127.0.0.1:{port}" for port in _free_ports(3 * count)]
        urls, clients, peers = [f"https://{one}" for one in ends[:count]], ends[count : 2 * count], ends[2 * count :]
        members, where = [], str(directory / "store")
        if store == "etcd":
            members, where = _members(directory, clients, peers), f"etcd://{','.join(clients)}"
        stack.enter_context(_running(members))
        token = asyncio.run(_create_pool(directory, where, count))
        managers = [_manager(directory, where, number, url) for number, url in enumerate(urls)]
        stack.enter_context(_running(managers))
        ca = trusting((directory / "m0" / "ca.crt").read_text())
        client, *each = (ApiClient(some, token, ca, REQUEST_S) for some in (urls, *([url] for url in urls)))
        outcome = _under_kills(client, each, [*managers, *members], random.Random(seed), seconds, report)
        kept = _stored_revisions(_until_primary(each))
        outcome.lost = {number: text for number, text in outcome.acknowledged.items() if kept.get(number) != text}
        return outcome


def _under_kills(
    client: ApiClient, each: Sequence[ApiClient], programs: Sequence[Program], chance: random.Random, seconds: float,
    report: Callable[[str], None],
) -> Outcome:  # fmt: skip
    """Apply with ``client`` while programs are killed; ``each``: clients of one manager."""
    _until_primary(each)
    outcome, stop = Outcome(), threading.Event()
    applying = threading.Thread(target=_apply, args=(client, outcome, seconds, stop))
    applying.start()
    try:
        _kill_at_random(programs, seconds, chance, outcome.acknowledged, report)
    finally:
        stop.set()
        applying.join()
    outcome.kills = {one.name: one.kills for one in programs}
    return outcome


def _kill_at_random(
    programs: Sequence[Program], seconds: float, chance: random.Random, acknowledged: Sized,
    report: Callable[[str], None],
) -> None:  # fmt: skip
    end, told = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < end:
        before, late = len(acknowledged), time.monotonic() + PROGRESS_S
        while len(acknowledged) == before and time.monotonic() < min(late, end):
            time.sleep(0.01)
        time.sleep(chance.uniform(*PAUSES_S))
        victim = chance.choice(programs)
        victim.kill()
        victim.kills += 1
        time.sleep(chance.uniform(*DEAD_S))
        victim.start()
        if time.monotonic() - told > 30:
            told = time.monotonic()
            kills = sum(one.kills for one in programs)
            report(f"{end - told:.0f} s left: {kills} kills, {len(acknowledged)} acknowledged")


def _apply(client: ApiClient, outcome: Outcome, seconds: float, stop: threading.Event) -> None:
    """Apply revisions, not more than are kept, and note what was acknowledged."""
    pause, last, number = seconds / (0.9 * KEPT_REVISIONS), time.monotonic(), 0
    while not stop.is_set():
        number += 1
        request = ApplyRequest(file=_config(number), message=f"change {number}")
        try:
            answer = client.post("/v1/config", request, ApplyAnswer)
        except ApiError:
            outcome.unanswered += 1
            stop.wait(0.02)
            continue
        if answer.revision is not None:
            outcome.acknowledged[answer.revision.number] = f"change {number}"
            outcome.longest_s, last = max(outcome.longest_s, time.monotonic() - last), time.monotonic()
        stop.wait(pause)


def _config(number: int) -> str:
    backends = "".join(f"      - {{dip: 10.0.0.{n}, weight: {1 + number % 60000}}}\n" for n in (1, 2))
    return f"services:\n  - name: web\n    vip: 192.0.2.1\n    protocol: tcp\n    port: 80\n    backends:\n{backends}"


def _stored_revisions(client: ApiClient) -> dict[int, str]:
    """Return the messages of all revisions by number."""
    revisions = client.get("/v1/revisions", RevisionsAnswer).revisions
    return {one.revision.number: one.revision.message for one in revisions}


def _until_primary(managers: Sequence[ApiClient]) -> ApiClient:
    """Wait until a manager says that it is primary, and return its client."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        for client in managers:
            with suppress(ApiError):
                if client.get("/v1/status", StatusAnswer).is_primary:
                    return client
        time.sleep(0.05)
    raise AssertionError(f"no primary within {START_S:g} s")


@contextmanager
def _running(programs: Sequence[Program]) -> Iterator[None]:
    try:
        for one in programs:
            one.start()
        yield
    finally:
        for one in programs:
            one.kill()


def _manager(directory: Path, where: str, number: int, url: str) -> Program:
    words = ["manager", "--store", where, "--state", str(directory / f"m{number}")]
    words += ["--listen", url.removeprefix("https://"), "--advertise", url]
    return Program(f"manager{number}", python("lbmux.cli.main", *words), directory / f"m{number}.log")


def _members(directory: Path, clients: Sequence[str], peers: Sequence[str]) -> list[Program]:
    """Return the members of a cluster; ``clients`` and ``peers``: their addresses for managers and each other."""
    cluster = ",".join(f"etcd{number}=http://{peer}" for number, peer in enumerate(peers))
    programs = []
    for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
        name, log = f"etcd{number}", directory / f"etcd{number}.log"
        command = etcd_command(name, "127.0.0.1", str(directory / name), cluster)
        own = {"http://127.0.0.1:2379": f"http://{client}", "http://127.0.0.1:2380": f"http://{peer}"}
        programs.append(Program(name, [own.get(word, word) for word in command], log))
    return programs


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


async def _create_pool(directory: Path, where: str, count: int) -> str:
    """Make the pool and its managers' certificates; return the admin's token."""
    own = Identity(directory / "m0")
    async with open_store(where) as store:
        async with asyncio.timeout(START_S):
            while True:
                try:
                    await store.get("pool/id")
                    break
                except UnavailableError:
                    await asyncio.sleep(0.1)
        _, token = await make_pool(store, own, "m0", ["127.0.0.1"], time.time())
    authority = own.authority
    assert authority is not None  # it was just created
    for number in range(1, count):
        key, subject = new_key(), Subject(own.subject.pool, "manager", f"m{number}")
        certificate = issue(authority, new_request(key, f"m{number}", ["127.0.0.1"]), subject, datetime.now(UTC))
        Identity(directory / f"m{number}").write(authority.certificate, KeyPair(certificate, key))
    return token


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "etcd"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1, help="of the random times and victims")
    arguments = parser.parse_args()
    if arguments.store == "etcd" and shutil.which("etcd") is None:
        parser.error("etcd is not installed: apt install etcd-server")
    outcome = run(
        arguments.store, arguments.seconds, arguments.seed, lambda line: print(line, file=sys.stderr, flush=True)
    )
    print(f"{arguments.store}: {outcome}")
    sys.exit(bool(outcome.lost))


if __name__ == "__main__":
    main()
