"""Rules in the form that `ipvsadm -S -n` prints, as a configuration: `-A` is a service, `-a` a server of it.

Source: ipvsadm(8). Without `-n`, ipvsadm prints names of hosts and ports, which are left out here.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lbmux.errors import ConfigError, Problem
from lbmux.tools.import_config import ipvs_terms
from lbmux.tools.import_config.entries import Block, Entry
from lbmux.tools.import_config.imported import Imported

LONG = {
    "-t": "tcp-service", "-u": "udp-service", "-f": "fwmark-service", "-s": "scheduler", "-p": "persistent",
    "-M": "netmask", "-r": "real-server", "-g": "gatewaying", "-i": "ipip", "-m": "masquerading", "-w": "weight",
    "-x": "u-threshold", "-y": "l-threshold", "-o": "ops", "-b": "sched-flags", "-6": "ipv6", "-A": "add-service",
    "-a": "add-server",
}  # fmt: skip
SERVICE = {
    "netmask": "lbmux hashes the whole source address",
    "ops": "datagrams of a flow stay with its backend",
    "sched-flags": "flags of an IPVS scheduler",
    "pe": "lbmux does not read SIP",
    "ipv6": "is for firewall marks",
}
SERVER = {
    "u-threshold": "lbmux does not count connections of a backend",
    "l-threshold": "lbmux does not count connections of a backend",
    "tun-port": "set the file's `tunnel.gue_port`",
    "tun-nocsum": "lbmux sends GUE and GRE without checksum",
    "tun-csum": "lbmux sends GUE and GRE without checksum",
    "tun-remcsum": "lbmux sends GUE without checksum",
}
ENDS = re.compile(r"\[(?P<v6>[0-9a-fA-F:]+)\]:(?P<port6>\d+)|(?P<v4>[\d.]+):(?P<port4>\d+)")
Services = dict[tuple[str, str], tuple[int, dict[str, Any], bool]]
"""Line, service, and whether its scheduler uses weights, by protocol and ends."""
TUNNELS = {"ipip": "ipip", "gue": "gue0", "gre": "gre"}


def parse(text: str, path: Path) -> Iterator[Entry]:
    """Yield an entry for each rule, with its options as the block; raise ConfigError if quotes do not match."""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ConfigError(path, (Problem(number, "", str(error)),)) from error
        options = tuple(_options(number, words))
        if options:
            yield Entry(number, options[0].key, options[0].words, options[1:])


def _options(line: int, words: list[str]) -> Iterator[Entry]:
    """Yield the options of a rule by their long names; words that follow belong to the option before."""
    key, values = "", list[str]()
    for word in words:
        if word.startswith("-"):
            if key:
                yield Entry(line, key, tuple(values))
            key, values = LONG.get(word, word.lstrip("-")), []
        else:
            values.append(word)
    if key:
        yield Entry(line, key, tuple(values))


def convert(entries: Iterator[Entry]) -> Imported:
    """Return the configuration of rules."""
    imported = Imported()
    services: Services = {}
    for entry in entries:
        block = Block(entry.block or (), imported.left, f"{entry.key}.", entry.line)
        if entry.key == "add-service":
            _add_service(entry, block, services, imported)
        elif entry.key == "add-server":
            _add_server(entry, block, services, imported)
        else:
            imported.left.append(Problem(entry.line, entry.key, "is not a rule that adds a service or a server"))
    for line, service, _ in services.values():
        imported.add(line, service)
    return imported


def _ends(entry: Entry | None) -> tuple[str, int | str] | None:
    match = ENDS.fullmatch(entry.word) if entry is not None else None
    if match is None:
        return None
    return match["v6"] or match["v4"], int(match["port6"] or match["port4"]) or "any"


def _key(entry: Entry, block: Block) -> tuple[str, str] | None:
    """Take protocol and ends of the service that a rule is about; leave the rule out if it has none."""
    marked = block.last("fwmark-service")
    if marked is not None:
        block.leave(marked, ipvs_terms.NO_FIREWALL_MARKS)
        return None
    tcp, udp = block.last("tcp-service"), block.last("udp-service")
    if _ends(tcp or udp) is None:
        block.leave(entry, "has no address and port in digits; print the rules with `ipvsadm -S -n`")
        return None
    return ("tcp", tcp.word) if tcp is not None else ("udp", udp.word if udp else "")


def _add_service(entry: Entry, block: Block, services: Services, imported: Imported) -> None:
    key = _key(entry, block)
    if key is None:
        return
    vip, port = _ends(Entry(entry.line, "", (key[1],))) or ("", 0)
    scheduler = block.word("scheduler", default="wlc")
    service: dict[str, Any] = {"name": f"{vip}-{key[0]}-{port}", "vip": vip, "protocol": key[0], "port": port}
    service |= ipvs_terms.hash_of(scheduler, entry.line, "add-service.scheduler", imported.left)
    if block.last("persistent") is not None:
        service |= ipvs_terms.persistence(entry.line, "add-service.persistent", imported.left)
    block.leave_rest(SERVICE)
    services[key] = entry.line, service | {"backends": []}, scheduler in ipvs_terms.WEIGHTED


def _add_server(entry: Entry, block: Block, services: Services, imported: Imported) -> None:
    key = _key(entry, block)
    if key is None:
        return
    server, weight = _ends(block.last("real-server")), block.number("weight", default=1)
    if key not in services or server is None:
        block.leave(entry, "has no service above it" if server else "has no server's address and port in digits")
        return
    _, service, is_weighted = services[key]
    methods = [method for method in ("gatewaying", "ipip", "masquerading") if block.last(method) is not None]
    tunnel = ipvs_terms.tunnel_of((methods or ["gatewaying"])[-1], entry.line, "add-server", imported.left)
    if (kind := block.last("tun-type")) is not None:
        tunnel = {"tunnel": TUNNELS.get(kind.word, "ipip")}
    backend = {"dip": server[0]} | ({"port": server[1]} if server[1] != "any" else {}) | tunnel
    service["backends"].append(backend | ({"weight": weight} if is_weighted else {}))
    block.leave_rest(SERVER)
