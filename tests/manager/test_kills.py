"""A manager that is killed at any moment under a client that applies changes: what it acknowledged is there."""

import asyncio
import subprocess
import time
from pathlib import Path

from lbmux.lab.processes import python
from lbmux.manager.admission import make_pool
from lbmux.manager.api_client import ApiClient, ApiError, trusting
from lbmux.manager.api_models import ApplyAnswer, ApplyRequest, RevisionsAnswer, StatusAnswer
from lbmux.manager.identity import Identity
from lbmux.manager.store.open_store import open_store
from tests.manager.etcd_server import free_ports
from tests.manager.test_pool import file

START_S, KILLS, LEAST = 30, 3, 5


def made(path: Path) -> str:
    async def make() -> str:
        async with open_store(str(path)) as store:
            _, token = await make_pool(store, Identity(path), "localhost", ["127.0.0.1"], time.time())
            return token

    return asyncio.run(make())


def started(path: Path, port: int, client: ApiClient) -> "subprocess.Popen[bytes]":
    url, where = f"https://127.0.0.1:{port}", str(path)
    words = ["--store", where, "--state", where, "--listen", f"127.0.0.1:{port}", "--advertise", url]
    process = subprocess.Popen(python("lbmux.cli.main", "manager", *words), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/v1/status", StatusAnswer).is_primary:
                return process
        except ApiError:
            time.sleep(0.02)
    process.kill()
    raise AssertionError("the manager did not start")


def kept(client: ApiClient) -> dict[int, str]:
    """Return the messages of all revisions by number."""
    found = client.get("/v1/revisions", RevisionsAnswer).revisions
    return {one.revision.number: one.revision.message for one in found}


def test_acknowledged_revisions_survive_kills(tmp_path: Path) -> None:
    token, (port,) = made(tmp_path), free_ports(1)
    client = ApiClient([f"https://127.0.0.1:{port}"], token, trusting((tmp_path / "ca.crt").read_text()))
    acknowledged: dict[int, str] = {}
    for turn in range(KILLS):
        process = started(tmp_path, port, client)
        try:
            assert acknowledged.items() <= kept(client).items()
            before = len(acknowledged)
            killing = subprocess.Popen(["sh", "-c", f"sleep 0.{3 + turn}; kill -9 {process.pid}"])
            for number in range(10_000):
                message = f"{turn} {number}"
                request = ApplyRequest(file=file(1, 2, weight=1 + number).decode(), message=message)
                try:
                    answer = client.post("/v1/config", request, ApplyAnswer)
                except ApiError:
                    break
                if answer.revision is not None:
                    acknowledged[answer.revision.number] = message
            assert killing.wait(10) == 0 and len(acknowledged) - before >= LEAST
        finally:
            process.kill()
            process.wait()
    process = started(tmp_path, port, client)
    try:
        assert acknowledged.items() <= kept(client).items()
    finally:
        process.kill()
        process.wait()
