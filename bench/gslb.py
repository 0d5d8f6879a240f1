"""How long users are sent to a PoP that is lost, by TTL and kind of resolver: global server load balancing by DNS.

All users are nearest to pop1, which loses its link to the wide-area network. `lbmux steer run` notices by its probes
and publishes a map without it. Users resolve the name for each new connection, ten times a second, by one of: an
ordinary Unbound; one that keeps answers for 600 s (`cache-min-ttl`); and a "megaproxy" resolver for half of the users,
which names no client subnet. Beside it the loss of a PoP with anycast: the time until new connections are answered
again (`lbmux lab run cloudflare-anycast lose-pop`).

``python -m bench.gslb --ttl 300`` measures other TTLs.
"""

import argparse
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import yaml
from pyroute2 import IPRoute

from bench.report import Result, print_table, write_json
from lbmux.lab.dns_queries import ask
from lbmux.lab.lab import Lab
from lbmux.lab.scoreboard.experiment import Load, Outcome
from lbmux.lab.scoreboard.scoreboard_runner import Setting
from lbmux.lab.scoreboard.scoreboard_runner import run as run_scoreboard
from lbmux.lab.systems.facebook_global import (
    AUTHORITY,
    HTTPS_PORT,
    NAME,
    facebook_global,
    pop,
    region,
    resolver_of,
)
from lbmux.lab.topology import Node, Topology

KEPT_S, MEGAPROXY = 600, 3
"""How long the stretching resolver keeps answers, and the region whose resolver has half of the users."""
RESOLVERS = {"Unbound": 1, "Unbound, cache-min-ttl 600": 2, "megaproxy, half of the users": MEGAPROXY}
"""The region whose users have each kind of resolver."""
TTLS_S = 5, 30
PROBE_S, SETTLE_S, AFTER_S = 0.1, 60.0, 15.0
SERVER = "changed answer of the authoritative server"
DEAD = pop(1).vips[0]


def topology(ttl_s: int) -> Topology:
    """Four regions, all nearest to pop1 by the measurements that the map is computed from."""
    plain = facebook_global(2, 1, 4, hosts=1, resolvers=(1, 2, MEGAPROXY, MEGAPROXY))
    steering = yaml.safe_load(plain.files["steering.yaml"]) | {"ttl_s": ttl_s}
    head, *lines = plain.files["rtt.csv"].splitlines()
    nearest = [f"{line.rpartition(',')[0]},{20 if ',pop1,' in line else 60}" for line in lines]
    files = plain.files | {"steering.yaml": yaml.safe_dump(steering), "rtt.csv": "\n".join([head, *nearest, ""])}
    return replace(plain, nodes=tuple(map(_with_resolver, plain.nodes)), files=files)


def _with_resolver(node: Node) -> Node:
    more = {"users2": ("--min-ttl", str(KEPT_S)), f"users{MEGAPROXY}": ("--no-subnet",)}.get(node.name, ())
    return replace(node, programs=tuple(replace(one, arguments=(*one.arguments, *more)) for one in node.programs))


@dataclass
class Watch:
    """Opens connections to the address that a server gives for the name; to the authoritative one it only listens.

    ``last``: the time of the last answer with the dead PoP, and so of the last connection to it.
    """

    server: str
    last: float = 0.0
    answer: str = ""

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(PROBE_S):
            try:
                self.answer = ask(self.server, NAME)[0][0]
            except (OSError, IndexError):
                continue
            if self.answer == DEAD:
                self.last = time.monotonic()
            if self.server != AUTHORITY.on_wan[0]:
                _connect(self.answer)


def _connect(address: str) -> None:
    """Send the first packet of a connection."""
    with socket.socket() as client, contextlib.suppress(BlockingIOError, OSError):
        client.setblocking(False)
        client.connect((address, HTTPS_PORT))


def measure(ttl_s: int, name: str = "benchgslb") -> list[Result]:
    """Lose the PoP, and watch for some time after the TTL."""
    lab, stop = Lab(topology(ttl_s), name), threading.Event()
    lab.down()
    watches = {
        f"last connection, {kind}": (f"users{n}", Watch(resolver_of(region(n)))) for kind, n in RESOLVERS.items()
    }
    watches[SERVER] = "users1", Watch(AUTHORITY.on_wan[0])
    threads = [
        threading.Thread(target=lab.inside, args=(node, partial(watch.run, stop))) for node, watch in watches.values()
    ]
    try:
        lab.up()
        for thread in threads:
            thread.start()
        _wait(lambda: all(watch.answer == DEAD for _, watch in watches.values()))
        lab.inside("pop1", _lose_link)
        lost, end = time.monotonic(), time.monotonic() + ttl_s + AFTER_S
        while time.monotonic() < end:
            time.sleep(PROBE_S)
        return [
            Result(
                "gslb", f"TTL {ttl_s} s: {kind}", watch.last - lost, "s",
                note="not the last: the watch ended" if watch.answer == DEAD else "",
            )
            for kind, (_, watch) in watches.items()
        ]  # fmt: skip
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        lab.down()


def _lose_link() -> None:
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="wan")[0], state="down")


def _wait(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SETTLE_S
    while not holds():
        if time.monotonic() > end:
            sys.exit("not all users were sent to pop1")
        time.sleep(PROBE_S)


def anycast() -> Result:
    load = Load(connections=50, seconds=5.0)
    (found,) = run_scoreboard(["cloudflare-anycast"], ["lose-pop"], load, Setting("benchgslb"), lambda text: None)
    if not isinstance(found, Outcome):
        sys.exit(f"anycast not measured: {found[2]}")
    return Result("gslb", "anycast: new connections answered again", found.normal_ms / 1000, "s")


def run() -> list[Result]:
    return [*(result for ttl_s in TTLS_S for result in measure(ttl_s)), anycast()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ttl", type=int, action="append", required=True, help="in seconds; may be repeated")
    parser.add_argument("--json", type=Path, help="write the results to this file, for `lbmux plot`")
    options = parser.parse_args()
    results = [result for ttl_s in options.ttl for result in measure(ttl_s)]
    print_table(results)
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
