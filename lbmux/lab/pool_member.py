"""Programs of a lab with managers (lbmux.lab.managed); each prepares something and then runs another program.

first POOL CONFIG STORE ADDRESSES NODES WORDS...   make the pool and all certificates, then run lbmux WORDS
later IDENTITY WORDS...                            wait for the certificate, then run lbmux WORDS
etcd NAME ADDRESS DATA MEMBERS                     run a member of the store's cluster
"""

import asyncio
import json
import os
import runpy
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lbmux.errors import LabError
from lbmux.manager.admission import make_pool
from lbmux.manager.authority import KeyPair, Subject, issue, new_key, new_request
from lbmux.manager.identity import Identity
from lbmux.manager.pool import Pool
from lbmux.manager.proposals import Caller, Proposal
from lbmux.manager.store.election import campaign, resign
from lbmux.manager.store.open_store import open_store
from lbmux.manager.store.store import Store, UnavailableError

WAIT_S, RETRY_S, ETCD_TIMES_MS = 60.0, 0.05, ("50", "500")
"""Time for the store or a certificate; then etcd's heartbeat interval and election timeout."""


def first(pool: Path, config: Path, where: str, addresses: Sequence[str], nodes: Sequence[str]) -> None:
    """Make the pool with this configuration as its first revision, unless it exists."""
    own = Identity(pool / "manager1")
    if own.exists():
        return
    pool.mkdir(exist_ok=True)
    token = asyncio.run(_fill(where, own, addresses[0], config.read_bytes()))
    _write(pool / "token", token)
    _write(pool / "health.token", secrets.token_hex(32))
    urls = " ".join(f"https://{address}:7443" for address in addresses)
    lines = {"LBMUX_MANAGER": urls, "LBMUX_TOKEN_FILE": pool / "token", "LBMUX_MANAGER_CA": own.directory / "ca.crt"}
    _write(pool / "env", "".join(f"export {name}='{value}'\n" for name, value in lines.items()))
    for number, address in [*enumerate(addresses, 1)][1:]:
        _certify(own, pool, f"manager{number}", "manager", [address])
    for node in nodes:
        _certify(own, pool, node, "node", [])


async def _fill(where: str, own: Identity, address: str, config: bytes) -> str:
    """Make the pool in its store, with the first revision; return the admin's token."""
    async with open_store(where) as store:
        await _answering(store)
        _, token = await make_pool(store, own, "manager1", [address], time.time())
        leadership = await campaign(store, json.dumps({"url": ""}).encode())
        await Pool(store, leadership.guard).apply(Proposal(config, message="the lab's"), Caller("lab"))
        await resign(store, leadership)
    return token


async def _answering(store: Store) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await store.get("pool/id")
                return
            except UnavailableError:
                await asyncio.sleep(RETRY_S)


def _certify(own: Identity, pool: Path, name: str, role: str, addresses: Sequence[str]) -> None:
    authority, key = own.authority, new_key()
    assert authority is not None  # this process created it
    subject = Subject(own.subject.pool, role, name)
    certificate = issue(authority, new_request(key, name, addresses), subject, datetime.now(UTC))
    Identity(pool / name).write(authority.certificate, KeyPair(certificate, key))


def _write(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def wait_for(identity: Identity) -> None:
    """Wait until this node has its certificate; raise LabError."""
    deadline = time.monotonic() + WAIT_S
    while not identity.exists():
        if time.monotonic() > deadline:
            raise LabError(identity.directory.name, f"no certificate within {WAIT_S:.0f} s")
        time.sleep(RETRY_S)


def etcd_command(name: str, address: str, data: str, members: str) -> list[str]:
    """Return the command of a member; managers reach it on loopback only."""
    own, peer = "http://127.0.0.1:2379", f"http://{address}:2380"
    heartbeat, election = ETCD_TIMES_MS
    return [
        "etcd", "--name", name, "--data-dir", data, "--log-level", "error", "--auto-compaction-retention", "1",
        "--listen-client-urls", own, "--advertise-client-urls", own, "--listen-peer-urls", peer,
        "--initial-advertise-peer-urls", peer, "--initial-cluster", members,
        "--heartbeat-interval", heartbeat, "--election-timeout", election,
    ]  # fmt: skip


def main(words: Sequence[str]) -> None:
    kind, *rest = words
    if kind == "etcd":
        command = etcd_command(*rest)
        if shutil.which("etcd") is None:
            raise LabError(rest[0], "etcd is not installed: apt install etcd-server")
        os.execvp(command[0], command)
    if kind == "first":
        pool, config, where, addresses, nodes, *rest = rest
        first(Path(pool), Path(config), where, addresses.split(","), nodes.split(","))
    else:
        identity, *rest = rest
        wait_for(Identity(Path(identity)))
    sys.argv[1:] = rest
    runpy.run_module("lbmux.cli.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
