"""VRRP for a mux in the lab: keepalived adds an address to the mux's interface while this mux is active.

    python -m lbmux.lab.keepalived DIRECTORY --interface eth0 --address 10.0.0.10/24 --priority 101 --control MUX.sock

It is keepalived's parent and polls the mux's control socket.  If the mux is dead, frozen or not ready, the address
moves to the other mux.  keepalived gets the mux's health from a file that it tracks.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetHealth
from lbmux.bgp.speaker_watchdog import dies_with_parent
from lbmux.daemons.process import notify
from lbmux.errors import ControlError

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin"
ADVERTISEMENTS_S = 0.2
"""Seconds between VRRP advertisements.  After three missing ones the other mux takes over (RFC 5798)."""
ASK_EVERY_S, ANSWER_TIMEOUT_S = 0.05, 0.2
HEALTHY, FAILED = "0\n", "1\n"
"""The contents of a tracked file without a weight (keepalived.conf(5))."""


def configuration(interface: str, address: str, priority: int, health: Path) -> str:
    """keepalived's configuration.  It uses the interface's own MAC address, the only one that the mux forwards for."""
    return f"""global_defs {{
 vrrp_version 3
}}
track_file mux {{
 file "{health}"
 weight 0
}}
vrrp_instance vip {{
 state BACKUP
 interface {interface}
 virtual_router_id 1
 priority {priority}
 advert_int {ADVERTISEMENTS_S}
 track_file {{
  mux
 }}
 virtual_ipaddress {{
  {address}
 }}
}}
"""


def command(program: str, directory: Path) -> list[str]:
    """keepalived's command line: foreground, VRRP only, log to stderr, files in the directory."""
    files = ["-f", str(directory / "keepalived.conf"), "-p", str(directory / "pid"), "-r", str(directory / "vrrp.pid")]
    return [program, "--dont-fork", "--vrrp", "--log-console", *files]


def answers(control: Path) -> bool:
    try:
        ControlClient(control, ANSWER_TIMEOUT_S).ask(GetHealth())
    except ControlError:
        return False
    return True


def follow(control: Path, health: Path, keepalived: "subprocess.Popen[bytes]") -> None:
    """Report the mux's health to keepalived until it ends."""
    last = FAILED
    while keepalived.poll() is None:
        now = HEALTHY if answers(control) else FAILED
        if now != last:
            health.write_text(now)
            last = now
        time.sleep(ASK_EVERY_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--interface", required=True)
    parser.add_argument("--address", required=True, metavar="ADDR/LENGTH")
    parser.add_argument("--priority", type=int, required=True)
    parser.add_argument("--control", type=Path, required=True, help="the mux's control socket")
    arguments = parser.parse_args()
    program = shutil.which("keepalived", path=SEARCH)
    if program is None:
        sys.exit("keepalived is not installed: install the package keepalived")
    arguments.directory.mkdir(exist_ok=True)
    health = arguments.directory / "health"
    health.write_text(FAILED)
    text = configuration(arguments.interface, arguments.address, arguments.priority, health)
    (arguments.directory / "keepalived.conf").write_text(text)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keepalived = subprocess.Popen(
        command(program, arguments.directory), stdin=subprocess.DEVNULL, preexec_fn=dies_with_parent()
    )
    notify("READY=1")
    try:
        follow(arguments.control, health, keepalived)
    finally:
        keepalived.terminate()
        keepalived.wait()


if __name__ == "__main__":
    main()
