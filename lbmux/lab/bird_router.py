"""A router of the lab: BIRD installs the muxes' routes in the kernel, with ECMP over several next hops.

    python -m lbmux.lab.bird_router DIRECTORY --peer 10.0.1.2 --local 10.0.1.1 ...

It writes BIRD's configuration and then executes BIRD.  A PoP's router also announces the routes to an upstream router.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lbmux.daemons.process import notify

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin"
AS, MUX_AS, UPSTREAM_AS = 64512, 65001, 64513
FAMILIES = ("ipv4", "ipv6")
TIMERS = "hold time 3; keepalive time 1; connect delay time 1; connect retry time 1; error wait time 1, 1; "
LISTENING = "ipv4 { import all; export none; }; ipv6 { import all; export none; };"


def configuration(pairs: Sequence[tuple[str, str]], password: str = "", numbers: tuple[int, int] = (AS, MUX_AS)) -> str:
    """BIRD's configuration.  ``pairs``: own address and mux's address.  ``numbers``: own AS and the muxes' AS.

    Muxes without BFD can connect too.
    """
    own_as, peer_as = numbers
    lines = [
        f"router id {pairs[0][0]};",
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
            f"protocol bgp mux{number} {{ local {local} as {own_as}; neighbor {peer} as {peer_as}; bfd on; {secret}"
            f"{TIMERS}{LISTENING} }}"
        )
    return "\n".join(lines) + "\n"


def upstream(pair: tuple[str, str], prepend: int) -> str:
    """Return a session that announces all routes to another router, with own AS prepended ``prepend`` times."""
    local, peer = pair
    longer = f"bgp_path.prepend({AS}); " * prepend
    return (
        f"protocol bgp upstream {{ local {local} as {AS}; neighbor {peer} as {UPSTREAM_AS}; bfd on; {TIMERS}"
        + "".join(f"{family} {{ import none; export filter {{ {longer}accept; }}; }}; " for family in FAMILIES)
        + "}\n"
    )


def options(description: str | None) -> argparse.ArgumentParser:
    """Return the command-line options of BIRD and FRR routers."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--local", action="append", required=True)
    parser.add_argument("--peer", action="append", required=True)
    parser.add_argument("--password", default="")
    return parser


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--as", dest="own_as", type=int, default=AS)
    parser.add_argument("--peer-as", type=int, default=MUX_AS)
    parser.add_argument("--upstream", nargs=2, metavar=("LOCAL", "PEER"))
    parser.add_argument("--prepend", type=int, default=0, help="how often to the upstream router")
    arguments = parser.parse_args()
    program = shutil.which("bird", path=SEARCH)
    if program is None:
        sys.exit("bird is not installed: install the package bird2")
    arguments.directory.mkdir(exist_ok=True)
    config = arguments.directory / "bird.conf"
    pairs = list(zip(arguments.local, arguments.peer, strict=True))
    text = configuration(pairs, arguments.password, (arguments.own_as, arguments.peer_as))
    config.write_text(text + (upstream(arguments.upstream, arguments.prepend) if arguments.upstream else ""))
    control = ["-s", str(arguments.directory / "bird.ctl"), "-P", str(arguments.directory / "bird.pid")]
    notify("READY=1")
    os.execv(program, [program, "-f", "-c", str(config), *control])


if __name__ == "__main__":
    main()
