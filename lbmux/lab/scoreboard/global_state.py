"""The state of facebook-global's lab: where its resolvers send users, and what its proxies do with their requests."""

import contextlib
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from lbmux.lab.dns_queries import ask
from lbmux.lab.lab import Lab
from lbmux.lab.systems.facebook_global import AUTHORITY, NAME, Site, pop, region, resolver_of
from lbmux.lab.tls_proxy import BACKEND

REGIONS = 4
RESOLVERS = {f"users{n}": resolver_of(region(n)) for n in range(1, REGIONS + 1)}
"""The resolver by node of users, if each region has its own."""
WEIGHT, STATE, UP = "weight", "status", "UP"
TIMEOUT_S = 2.0


def count(lab: Lab, kind: str) -> int:
    """Return the number of sites of a kind: pop, dc or region."""
    return sum(node.name.removeprefix(kind).isdecimal() for node in lab.topology.nodes if node.name.startswith(kind))


def home(lab: Lab, users: str) -> Site:
    """Return the PoP nearest to the users of a region."""
    return pop((int(users.removeprefix("users")) - 1) % count(lab, "pop") + 1)


def answer(lab: Lab, users: str, server: str) -> str:
    """Return the address that a DNS server gives to the users of a region; empty without one."""
    with contextlib.suppress(OSError):
        return "".join(address for address, _ in lab.inside(users, partial(ask, server, NAME)))
    return ""


def at_authority(lab: Lab, users: str) -> str:
    """Return the address that the authoritative server gives to a region's users."""
    return answer(lab, users, AUTHORITY.on_wan[0])


def proxies(lab: Lab, site: str) -> list[Path]:
    """Return the runtime APIs of a site's proxies."""
    return sorted(lab.directory.glob(f"{site}-host*-haproxy.sock"))


def runtime(api: Path, command: str) -> str:
    """Return the answer of a proxy's runtime API."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened:
        opened.settimeout(TIMEOUT_S)
        opened.connect(str(api))
        opened.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: opened.recv(65536), b"")).decode()


def servers(api: Path) -> dict[str, tuple[str, int]]:
    """Return the state and the weight of each server of a proxy (HAProxy Management Guide, section 9.1)."""
    head, *lines = [line.split(",") for line in runtime(api, f"show stat {BACKEND} 4 -1").splitlines() if line]
    rows = [dict(zip(head, line, strict=False)) for line in lines]
    return {row["svname"]: (row[STATE], int(row[WEIGHT] or 0)) for row in rows}


def worker(api: Path) -> int:
    """Return the process that answers a runtime API, or 0."""
    with contextlib.suppress(OSError):
        pids = [line for line in runtime(api, "show info").splitlines() if line.startswith("Pid:")]
        return int(pids[0].split()[1]) if pids else 0
    return 0


def is_normal(lab: Lab) -> bool:
    """Return whether all users are sent to their nearest PoP, and all proxies use all data centres alike."""
    users = [f"users{n}" for n in range(1, count(lab, "region") + 1)]
    if any(answer(lab, one, RESOLVERS[one]) != home(lab, one).vips[0] for one in users):
        return False
    return all(_uses_all(api, count(lab, "dc")) for api in pop_proxies(lab))


def pop_proxies(lab: Lab) -> list[Path]:
    """Return the runtime APIs of all PoPs' proxies."""
    return [api for n in range(1, count(lab, "pop") + 1) for api in proxies(lab, f"pop{n}")]


def _uses_all(api: Path, centres: int) -> bool:
    with contextlib.suppress(OSError):
        states = [*servers(api).values()]
        return len(states) == centres and all(state == UP for state, _ in states) and len({w for _, w in states}) == 1
    return False


def change_steering(lab: Lab, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the file that `lbmux steer run` follows, atomically.  ``change`` gets its data."""
    path = lab.directory / "steering.yaml"
    data = yaml.safe_load(path.read_text())
    change(data)
    fresh = path.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(data, sort_keys=False))
    fresh.replace(path)
