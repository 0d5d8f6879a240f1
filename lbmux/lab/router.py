"""A router of the lab: BIRD, with the mux's routes in its kernel, several ways to a VIP beside one another (ECMP).

    python -m lbmux.lab.router DIRECTORY --peer 10.0.1.2 --local 10.0.1.1 ...

It writes BIRD's configuration and becomes BIRD.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin"
AS, MUX_AS = 64512, 65001
FAMILIES = ("ipv4", "ipv6")


def configuration(pairs: Iterable[tuple[str, str]], password: str = "") -> str:
    """``pairs``: own address and a mux's.  A mux that does not speak BFD is not held to it."""
    lines = [
        "router id 10.255.0.1;",
        "protocol device { scan time 1; }",
        'protocol bfd { interface "*" { interval 50 ms; multiplier 3; }; }',
        *(
            f"protocol kernel {{ scan time 60; merge paths on; {family} {{ import none; export all; }}; }}"
            for family in FAMILIES
        ),
    ]
    secret = f'password "{password}"; ' if password else ""
    for number, (local, peer) in enumerate(pairs, 1):
        lines.append(
            f"protocol bgp mux{number} {{ local {local} as {AS}; neighbor {peer} as {MUX_AS}; bfd on; {secret}"
            "hold time 3; keepalive time 1; connect delay time 1; connect retry time 1; error wait time 1, 1; "
            "ipv4 { import all; export none; }; ipv6 { import all; export none; }; }"
        )
    return "\n".join(lines) + "\n"


def options(description: str | None) -> argparse.ArgumentParser:
    """What a router of any kind is told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--local", action="append", required=True)
    parser.add_argument("--peer", action="append", required=True)
    parser.add_argument("--password", default="")
    return parser


def main() -> None:
    given = options(__doc__).parse_args()
    program = shutil.which("bird", path=SEARCH)
    if program is None:
        sys.exit("bird is not installed: the package bird2")
    given.directory.mkdir(exist_ok=True)
    config = given.directory / "bird.conf"
    config.write_text(configuration(zip(given.local, given.peer, strict=True), given.password))
    control = ["-s", str(given.directory / "bird.ctl"), "-P", str(given.directory / "bird.pid")]
    os.execv(program, [program, "-f", "-c", str(config), *control])


if __name__ == "__main__":
    main()
