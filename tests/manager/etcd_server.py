"""One etcd member for tests: TLS with client certificates, data in memory, on loopback ports."""

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lbmux.manager import authority
from lbmux.manager.authority import Subject
from lbmux.manager.store.open_store import EtcdTls

START_S = 20
ATTEMPTS = 3


@dataclass(frozen=True)
class Etcd:
    endpoint: str
    tls: EtcdTls
    process: "subprocess.Popen[bytes]"


@contextlib.contextmanager
def etcd_server() -> Iterator[Etcd]:
    """A member that answers; it is ended, and its data removed, at the end."""
    with tempfile.TemporaryDirectory(prefix="lbmux-etcd-", dir="/dev/shm") as directory:
        tls = certificates(Path(directory))
        for attempt in range(ATTEMPTS):
            endpoint, process = _start(Path(directory) / str(attempt), tls)
            try:
                if _answers(process, endpoint):
                    yield Etcd(endpoint, tls, process)
                    return
            finally:
                process.kill()
                process.wait()
    raise AssertionError("etcd did not start: was a port taken in the meantime?")


def certificates(directory: Path) -> EtcdTls:
    """A CA, and one certificate for the server and its clients."""
    now = datetime.now(UTC)
    ca, key = authority.new_authority("tests", now), authority.new_key()
    request = authority.new_request(key, "localhost", ["127.0.0.1"])
    files = EtcdTls(directory / "ca.crt", directory / "etcd.crt", directory / "etcd.key")
    files.authority.write_bytes(ca.certificate)
    files.certificate.write_bytes(authority.issue(ca, request, Subject("tests", "manager", "localhost"), now))
    files.key.write_bytes(key)
    return files


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(data: Path, tls: EtcdTls) -> tuple[str, "subprocess.Popen[bytes]"]:
    client, peer = free_ports(2)
    mine = f"https://127.0.0.1:{client}"
    peers = f"http://127.0.0.1:{peer}"
    command = [
        "etcd", "--name", "test", "--data-dir", str(data), "--log-level", "error",
        "--listen-client-urls", mine, "--advertise-client-urls", mine,
        "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"test={peers}",
        "--client-cert-auth", "--trusted-ca-file", str(tls.authority),
        "--cert-file", str(tls.certificate), "--key-file", str(tls.key),
        "--heartbeat-interval", "20", "--election-timeout", "200",
    ]  # fmt: skip
    log = data.with_suffix(".log").open("wb")
    with log:
        return f"127.0.0.1:{client}", subprocess.Popen(command, stdout=log, stderr=log)


def _answers(process: "subprocess.Popen[bytes]", endpoint: str) -> bool:
    host, _, port = endpoint.rpartition(":")
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        time.sleep(0.02)
    return False
