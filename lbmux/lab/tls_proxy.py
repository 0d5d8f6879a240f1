"""A layer-7 proxy of the lab that ends TCP and TLS: HAProxy in front of data centres, or of application servers.

    python -m lbmux.lab.tls_proxy BASE --name pop1-host1 --tls --server dc1 203.0.113.1 443 ...

It writes a certificate and HAProxy's configuration beside BASE, and executes HAProxy as master and worker.  SIGUSR2
makes the master start a new worker, which takes the listening sockets from the old one; that one ends with its
connections.
``BASE.sock`` is the runtime API.  Answers name the proxies they passed in Via (RFC 9110, section 7.6.3).
"""

import argparse
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from lbmux.lab.haproxy import SEARCH
from lbmux.manager.authority import Subject, issue, new_authority, new_key, new_request

PORT = 443
BACKEND = "upstream"
CONFIGURATION = """\
global
 nbthread 1
 stats socket {base}.sock mode 600 level admin expose-fd listeners
defaults
 mode http
 timeout connect 1s
 timeout check 2s
 timeout client 1h
 timeout http-keep-alive 1h
 timeout server 2s
 retries 3
 option redispatch 1
 retry-on all-retryable-errors
 option idle-close-on-response
frontend https
 bind :::{port} v4v6 ssl crt {base}.pem curves X25519:P-256
 http-response add-header via "1.1 {name}"
 default_backend {backend}
backend {backend}
 balance roundrobin
 http-reuse always
 default-server check inter 1s rise 1 fall 3 weight 128 pool-purge-delay 1h{tls}
{servers}
"""
"""X25519 is what clients offer first: another curve would cost a round trip in TLS 1.3.

A request without an answer within 2 s is sent again, to another server.  Idle connections to servers stay open.

A worker that ends does not close a client's idle connection before its next request (idle-close-on-response).
"""


def configuration(base: Path, name: str, servers: list[tuple[str, str, int]], tls: bool) -> str:
    lines = "\n".join(f" server {server} {address}:{port}" for server, address, port in servers)
    return CONFIGURATION.format(
        base=base, port=PORT, name=name, backend=BACKEND, servers=lines,
        tls=" ssl verify none no-check-ssl" if tls else "",
    )  # fmt: skip


def certificate(name: str) -> bytes:
    """Return a certificate and its key, in PEM, of an authority of its own.  Clients of the lab do not verify it."""
    key, now = new_key(), datetime.now(UTC)
    return issue(new_authority(name, now), new_request(key, name, []), Subject(name, "manager", name), now) + key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--tls", action="store_true", help="use TLS to the servers too")
    parser.add_argument("--server", nargs=3, action="append", required=True, metavar=("NAME", "ADDRESS", "PORT"))
    options = parser.parse_args()
    program = shutil.which("haproxy", path=SEARCH)
    if program is None:
        sys.exit("haproxy is not installed: install the package haproxy")
    servers = [(name, address, int(port)) for name, address, port in options.server]
    base = options.base
    with open(os.open(f"{base}.pem", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(certificate(options.name))
    Path(f"{base}.cfg").write_text(configuration(base, options.name, servers, options.tls))
    os.execv(program, [program, "-Ws", "-f", f"{base}.cfg"])  # -Ws reports readiness by sd_notify


if __name__ == "__main__":
    main()
