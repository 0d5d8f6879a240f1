"""A layer-7 proxy of the lab: HAProxy terminates clients' connections and opens its own to application servers.

    python -m lbmux.lab.haproxy FILE --web-port 80 --echo-port 7 --server a1 10.2.1.2 8080 8007 ...

It listens, writes HAProxy's configuration and then executes HAProxy with the open sockets. No connection is refused
once it reports ready, and there is only one process to stop or kill.
"""

import argparse
import os
import shutil
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbmux.daemons.process import notify

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin"
BACKLOG = 1024
COMMON = """global
 nbthread 1
defaults
 timeout connect 2s
 timeout client 1h
 timeout server 1h
 retries 3
 option redispatch
 balance roundrobin
 default-server check inter 200ms rise 1 fall 2 on-marked-down shutdown-sessions
"""
"""A server is taken out after two failed checks, and its connections are closed at once."""


@dataclass(frozen=True)
class Listener:
    """``mode``: http balances requests, tcp passes bytes through."""

    name: str
    mode: str
    descriptor: int
    servers: Sequence[tuple[str, str, int]]


def configuration(listeners: Iterable[Listener]) -> str:
    lines = []
    for listener in listeners:
        lines += [f"listen {listener.name}", f" mode {listener.mode}", f" bind fd@{listener.descriptor}"]
        lines += [f" server {name} {address}:{port}" for name, address, port in listener.servers]
    return COMMON + "\n".join(lines) + "\n"


def listen(port: int) -> int:
    """Return a listening socket's descriptor that stays open across exec."""
    listener = socket.create_server(("", port), backlog=BACKLOG)
    listener.set_inheritable(True)
    return listener.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--web-port", type=int, required=True)
    parser.add_argument("--echo-port", type=int, required=True)
    parser.add_argument(
        "--server", nargs=4, action="append", required=True, metavar=("NAME", "ADDRESS", "WEB-PORT", "ECHO-PORT")
    )
    arguments = parser.parse_args()
    program = shutil.which("haproxy", path=SEARCH)
    if program is None:
        sys.exit("haproxy is not installed: install the package haproxy")
    web = [(name, address, int(port)) for name, address, port, _ in arguments.server]
    echo = [(name, address, int(port)) for name, address, _, port in arguments.server]
    listeners = (
        Listener("web", "http", listen(arguments.web_port), web),
        Listener("echo", "tcp", listen(arguments.echo_port), echo),
    )
    arguments.file.write_text(configuration(listeners))
    notify("READY=1")
    os.execv(program, [program, "-db", "-f", str(arguments.file)])


if __name__ == "__main__":
    main()
