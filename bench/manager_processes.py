"""A pool's managers as processes on loopback, with one SQLite store, or with an etcd cluster of as many members.

All files are in memory (/dev/shm).
"""

import asyncio
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lbmux.lab.pool_member import etcd_command
from lbmux.lab.processes import python
from lbmux.manager.admission import make_pool
from lbmux.manager.api_client import ApiClient, ApiError, trusting
from lbmux.manager.api_models import StatusAnswer
from lbmux.manager.authority import KeyPair, Subject, issue, new_key, new_request
from lbmux.manager.identity import Identity
from lbmux.manager.store.open_store import open_store
from lbmux.manager.store.store import UnavailableError

START_S, REQUEST_S = 60.0, 6.0


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
class ManagerPool:
    """The running managers; ``token``: an admin's; ``clients``: the members' addresses for managers."""

    directory: Path
    urls: list[str]
    token: str
    managers: list[Program]
    members: list[Program]
    clients: list[str]

    @property
    def identity(self) -> Identity:
        """The first manager's, with the key of the CA."""
        return Identity(self.directory / "m0")

    def client(self, *urls: str) -> ApiClient:
        """Return a client of these managers; default all."""
        return ApiClient(urls or self.urls, self.token, trusting(self.identity.ca.decode()), REQUEST_S)

    def answer(self) -> bool:
        """Return whether all managers answer and know a primary."""
        with suppress(ApiError):
            return all(self.client(url).get("/v1/status", StatusAnswer).primary for url in self.urls)
        return False

    def primary(self) -> tuple[str, Program]:
        """Wait until a manager is primary; return its URL and process."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            for url, manager in zip(self.urls, self.managers, strict=True):
                with suppress(ApiError):
                    if self.client(url).get("/v1/status", StatusAnswer).is_primary:
                        return url, manager
            time.sleep(0.05)
        raise AssertionError(f"no primary within {START_S:g} s")


@contextmanager
def managers_running(store: Literal["sqlite", "etcd"], count: int) -> Iterator[ManagerPool]:
    """Make a pool and run its managers; with etcd as many members."""
    with tempfile.TemporaryDirectory(prefix="lbmux-managers-", dir="/dev/shm") as name, ExitStack() as stack:
        directory, ends = Path(name), [f"127.0.0.1:{port}" for port in _free_ports(3 * count)]
        urls, clients, peers = [f"https://{one}" for one in ends[:count]], ends[count : 2 * count], ends[2 * count :]
        members, where = list[Program](), str(directory / "store")
        if store == "etcd":
            members, where = _members(directory, clients, peers), f"etcd://{','.join(clients)}"
        stack.enter_context(_running(members))
        token = asyncio.run(_create_pool(directory, where, count))
        managers = [_manager(directory, where, number, url) for number, url in enumerate(urls)]
        stack.enter_context(_running(managers))
        yield ManagerPool(directory, urls, token, managers, members, clients)


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
