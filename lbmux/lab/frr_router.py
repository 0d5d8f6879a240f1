"""A router of the lab: FRR, the alternative to BIRD.  Muxes need no setting for either.

    python -m lbmux.lab.frr_router DIRECTORY --peer 10.0.1.2 --local 10.0.1.1 ...

FRR has several daemons: zebra for the kernel's routes, bfdd for BFD, bgpd for BGP.  All are children of this process,
with their files in the directory.  All end on SIGTERM, or when one of them ends.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from lbmux.daemons.process import notify
from lbmux.lab.bird_router import AS, MUX_AS, options

SEARCH = "/usr/lib/frr"
DAEMONS = ("zebra", "bfdd", "bgpd")
"""The daemons in start order: all need zebra's socket, and bgpd needs bfdd."""
USER = "frr"
"""The daemons refuse to run as root.  The kernel clears a process's parent-death signal when it changes its user, so
they survive if this process is killed: end it with SIGTERM."""
START_TIMEOUT_S = 5.0
END_TIMEOUT_S = 0.8
"""Seconds for each daemon to start; the sum is less than the lab's limit for this process."""

BFD = """bfd
 profile lab
  receive-interval 50
  transmit-interval 50
  detect-multiplier 3
"""


def configuration(pairs: Iterable[tuple[str, str]], password: str = "") -> str:
    """bgpd's configuration.  ``pairs``: own address and mux's address."""
    peers = [peer for _, peer in pairs]
    lines = [
        f"router bgp {AS}",
        " bgp router-id 10.255.0.1",
        " no bgp ebgp-requires-policy",  # otherwise eBGP routes without a policy are rejected
        " no bgp default ipv4-unicast",
    ]
    for peer in peers:
        lines += [
            f" neighbor {peer} remote-as {MUX_AS}",
            f" neighbor {peer} timers 1 3",
            f" neighbor {peer} timers connect 1",
            f" neighbor {peer} bfd profile lab",
            *([f" neighbor {peer} password {password}"] if password else []),
        ]
    for family in ("ipv4", "ipv6"):
        activated = [f"  neighbor {peer} activate" for peer in peers]
        lines += [f" address-family {family} unicast", *activated, "  maximum-paths 16", " exit-address-family"]
    return "\n".join(lines) + "\n"


def command(daemon: str, directory: Path) -> list[str]:
    """Return a daemon's command line: no TCP console, and its own paths, unlike those of other FRR instances."""
    files = ["-f", str(directory / f"{daemon}.conf"), "-i", str(directory / f"{daemon}.pid"), "-P", "0"]
    own = ["--vty_socket", str(directory), "-z", str(directory / "zserv.api"), "-u", USER, "-g", USER]
    bfd = {"bfdd": ["--bfdctl", str(directory / "bfdd.sock")]}
    return [f"{SEARCH}/{daemon}", *files, *own, "--log", "stdout", *bfd.get(daemon, [])]


def wait_for(daemon: str, child: "subprocess.Popen[bytes]", directory: Path) -> None:
    """Wait for the daemon's console socket, which it creates after everything that other daemons need."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (directory / f"{daemon}.vty").exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def run(directory: Path) -> None:
    """Start all daemons, and end when one ends.  SIGTERM may arrive at any time, so children are recorded at once."""
    children: list[subprocess.Popen[bytes]] = []
    try:
        for daemon in DAEMONS:
            children.append(subprocess.Popen(command(daemon, directory), stdin=subprocess.DEVNULL))
            wait_for(daemon, children[-1], directory)
        notify("READY=1")
        while all(child.poll() is None for child in children):
            time.sleep(0.1)
    finally:
        for child in reversed(children):
            child.terminate()
        for child in reversed(children):
            try:
                child.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def main() -> None:
    arguments = options(__doc__).parse_args()
    missing = [daemon for daemon in DAEMONS if not Path(SEARCH, daemon).exists()]
    if missing:
        sys.exit(f"{', '.join(missing)} not installed: install the package frr")
    arguments.directory.mkdir(exist_ok=True)
    texts = {"bfdd": BFD, "bgpd": configuration(zip(arguments.local, arguments.peer, strict=True), arguments.password)}
    for daemon in DAEMONS:
        config = arguments.directory / f"{daemon}.conf"
        config.write_text(texts.get(daemon, ""))
        shutil.chown(config, USER, USER)
    shutil.chown(arguments.directory, USER, USER)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run(arguments.directory)


if __name__ == "__main__":
    main()
