"""BIRD as the speaker: a private instance with a generated configuration, driven through its control socket.

VIPs are static routes.  They never reach the kernel, because this BIRD has no kernel protocol.
"""

import asyncio
import re
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from lbmux.addresses import Address
from lbmux.bgp.bgp_settings import Bgp, Neighbour, Route, sorted_prefixes
from lbmux.bgp.notifications import printable
from lbmux.bgp.speaker import write_private
from lbmux.errors import SetupError
from lbmux.linux.capabilities import Capability

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
ANSWER_S = 2.0
HANGS = "the speaker bird does not answer"
CONFIGURED = ("0003", "0004", "0018")
"""Reply codes: reconfigured, reconfiguration in progress, unchanged."""


FAMILIES = {"ipv4": 4, "ipv6": 6}


def configuration(bgp: Bgp, directory: Path) -> str:
    """Generate the configuration; routes are in files of their own."""
    attributes = [f"bgp_community.add(({high},{low}));" for high, low in bgp.communities]
    attributes += [f"bgp_med = {bgp.med};"] if bgp.med is not None else []
    export = f"export filter {{ {' '.join(attributes)} accept; }};"
    # Quoted strings have no escapes in BIRD; passwords with a quote are refused earlier.
    common = [
        f"hold time {bgp.hold_s};", f"keepalive time {max(1, bgp.hold_s // 3)};", "connect delay time 1;",
        "connect retry time 1;", "error wait time 1, 2;", "error forget time 2;",
        *([f'password "{bgp.password}";'] if bgp.password else []),
        *(["bfd on;"] if bgp.bfd else []),
        *(f"{family} {{ import none; next hop address {own}; {export} }};" for family, _, own in _families(bgp)),
    ]  # fmt: skip
    lines = [f"router id {bgp.router_id};", 'timeformat protocol "%s";', "protocol device { }"]
    if bgp.bfd:
        interval = f"interval {bgp.bfd_interval_ms} ms; multiplier {bgp.bfd_multiplier};"
        lines.append(f'protocol bfd {{ interface "*" {{ {interval} }}; }}')
    # An include needs a line of its own.
    for family, version, _ in _families(bgp):
        lines += [f"protocol static vips{version} {{ {family};", f'include "{directory / f"vips{version}.conf"}";', "}"]
    for number, peer in enumerate(bgp.peers, 1):
        ends = f"local {bgp.local_to(peer)} as {bgp.number}; neighbor {peer.address} as {peer.number};"
        lines.append(f"protocol bgp peer{number} {{ {' '.join([ends, *common])} }}")
    return "\n".join(lines) + "\n"


def _families(bgp: Bgp) -> list[tuple[str, int, Address]]:
    """Return the address families with an own address, the next hop."""
    own = {4: bgp.local, 6: bgp.local6}
    return [(family, version, hop) for family, version in FAMILIES.items() if (hop := own[version]) is not None]


def static_routes(routes: frozenset[Route], version: int, number: int) -> str:
    """Generate static routes; ``number`` is the own AS, which is prepended to paths that are longer."""
    attributes = dict[str, str]()
    for route in routes:
        steps = [f"bgp_path.prepend({number});"] * route.longer_by
        steps += [f"bgp_community.add(({high},{low}));" for high, low in route.communities]
        attributes[str(route.prefix)] = f" {{ {' '.join(steps)} }}" if steps else ""
    prefixes = sorted_prefixes((route.prefix for route in routes), version)
    return "".join(f"route {prefix} blackhole{attributes[prefix]};\n" for prefix in prefixes)


def parse_neighbours(protocols: str, sessions: str, bgp: Bgp, now: float) -> list[Neighbour]:
    """Parse ``show protocols all`` and ``show bfd sessions``; ``now`` is in seconds since the epoch, as their times."""
    split = re.split(r"^1002-", protocols, flags=re.M)[1:]
    blocks = {words[0]: block for block in split if (words := block.split(maxsplit=1))}
    neighbours = []
    for number, peer in enumerate(bgp.peers, 1):
        block = blocks.get(f"peer{number}", "")
        state = re.search(r"BGP state:\s+(\w+)", block)
        since, exported = re.match(r"(?:\S+\s+){4}(\d{1,18})", block), re.findall(r"(\d{1,18}) exported", block)
        bfd = re.search(rf"^(?:1020-|\s)\s*{re.escape(str(peer.address))}\s+\S+\s+(\w+)", sessions, re.M)
        error = re.search(r"Last error:\s+(\S.*?)\s*$", block, re.M)
        up = state is not None and state[1] == "Established"
        neighbours.append(
            Neighbour(
                str(peer.address),
                peer.number,
                state[1].lower() if state else "down",
                round(now - int(since[1]), 3) if up and since else None,
                sum(map(int, exported)) if up else 0,
                bfd[1].lower() if bfd else "",
                "" if up or error is None else printable(error[1].encode()),
            )
        )
    return neighbours


class Bird:
    """BIRD as the speaker: a `Speaker` that is controlled through BIRD's socket."""

    name = "bird"
    environment: Mapping[str, str] = {}
    capabilities: Collection[Capability] = (Capability.NET_BIND_SERVICE, Capability.NET_RAW)
    """It listens on TCP 179, and gives BFD's packets the priority of routing protocols."""

    def __init__(self, bgp: Bgp, directory: Path) -> None:
        self._bgp, self._directory = bgp, directory
        self._control = directory / "bird.ctl"

    def command(self) -> list[str]:
        program = shutil.which("bird", path=SEARCH)
        if program is None:
            raise SetupError("BGP speaker bird", "not installed", "install the package bird2")
        files = ["-c", str(self._directory / "bird.conf"), "-P", str(self._directory / "bird.pid")]
        return [program, "-f", *files, "-s", str(self._control)]

    async def prepare(self, routes: frozenset[Route]) -> None:
        write_private(self._directory / "bird.conf", configuration(self._bgp, self._directory))
        self._write_routes(routes)
        self._control.unlink(missing_ok=True)

    async def change(self, before: frozenset[Route], after: frozenset[Route]) -> None:
        self._write_routes(after)
        answer = await self._ask("configure")
        if not any(line.startswith(CONFIGURED) for line in answer.splitlines()):
            raise OSError(f"bird: {answer.strip()}")

    def _write_routes(self, routes: frozenset[Route]) -> None:
        for version in FAMILIES.values():
            text = static_routes(routes, version, self._bgp.number)
            write_private(self._directory / f"vips{version}.conf", text)

    async def neighbours(self) -> list[Neighbour]:
        try:
            protocols, sessions = await self._ask("show protocols all"), await self._ask("show bfd sessions")
        except TimeoutError:
            return [Neighbour(str(one.address), one.number, "unknown", reason=HANGS) for one in self._bgp.peers]
        except OSError:  # it is starting
            protocols = sessions = ""
        return parse_neighbours(protocols, sessions, self._bgp, time.time())

    async def close(self) -> None:
        return

    async def _ask(self, command: str) -> str:
        """Return the answer to a command; it ends with a line that starts with four digits and a space."""
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(str(self._control))
            try:
                await _answer(reader)  # the greeting
                writer.write(command.encode() + b"\n")
                return await _answer(reader)
            finally:
                writer.close()


async def _answer(reader: asyncio.StreamReader) -> str:
    lines = []
    while line := (await reader.readline()).decode(errors="replace"):
        lines.append(line)
        if re.match(r"\d{4} ", line):
            return "".join(lines)
    raise ConnectionError("bird closed the connection")
