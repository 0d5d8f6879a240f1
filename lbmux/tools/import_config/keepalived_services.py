"""keepalived's `virtual_server` blocks as a configuration.

Source: keepalived.conf(5), "Virtual server(s)". keepalived checks each real server on its own; lbmux has one check for
all backends of a service, that of the first.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lbmux.errors import Problem
from lbmux.tools.import_config import ipvs_terms
from lbmux.tools.import_config.entries import Block, Entry
from lbmux.tools.import_config.imported import Imported

OUTSIDE = "is not a virtual_server"
NOTIFY = "lbmux runs no scripts on changes; alert on its metrics"
STATE = "lbmux gives no traffic to a backend until its first success, and keeps running probes in each state"
BY_COUNT = "lbmux does not count connections of a backend"
ENTRY: Mapping[str, str] = {
    "ops": "datagrams of a flow stay with its backend",
    "persistence_engine": "lbmux does not read SIP",
    "persistence_granularity": "lbmux hashes the whole source address",
    "sorry_server": "see `on_no_backend`, or give a backend of last resort a service of its own",
    "sorry_server_inhibit": "see `sorry_server`",
    "sorry_server_lvs_method": "see `sorry_server`",
    "quorum": "see `health.watermark`, a share of the backends, which keeps all of them below it",
    "hysteresis": "see `health.watermark`",
    "inhibit_on_failure": "flows of a backend that fails move, see `on_down`",
    "ip_family": ipvs_terms.NO_FIREWALL_MARKS,
    "snmp_name": "lbmux has no SNMP; the service's name is in its metrics",
    "smtp_alert": NOTIFY, "quorum_up": NOTIFY, "quorum_down": NOTIFY, "notify_up": NOTIFY, "notify_down": NOTIFY,
    "alpha": STATE, "omega": STATE, "ha_suspend": STATE, "uthreshold": BY_COUNT, "lthreshold": BY_COUNT,
    "warmup": "lbmux spreads probes by `health.jitter`",
    **dict.fromkeys(("flag-1", "flag-2", "flag-3", "sh-port", "sh-fallback", "mh-port", "mh-fallback"),
                    "a flag of an IPVS scheduler"),
}  # fmt: skip
CHECK: Mapping[str, str] = {
    "delay_before_retry": "lbmux probes again after `interval_s`",
    "delay_loop": "the service's interval is in force",
    "warmup": "lbmux spreads probes by `health.jitter`",
    "alpha": STATE,
    "connect_ip": "lbmux probes the backend's own address",
    **dict.fromkeys(("bindto", "bind_if", "bind_port", "fwmark"), "lbmux's probes leave by the machine's routes"),
    "log_all_failures": "lbmux logs changes of state",
    "http_protocol": "lbmux speaks HTTP/1.1",
    "fast_recovery": "lbmux has one URL",
    "digest": "see `health.body`, a text in the answer",
    **dict.fromkeys(("regex", "regex_no_match", "regex_options", "regex_stack", "regex_min_offset",
                     "regex_max_offset"), "see `health.body`, a text in the answer"),
    "type": "lbmux asks for A, and for NS of the root",
    "misc_dynamic": "an exit code changes no weight",
    "user": "commands run as the mux's user",
    **dict.fromkeys(("payload", "require_reply", "min_reply_length", "max_reply_length"),
                    "lbmux sends text and expects an answer"),
}  # fmt: skip
KINDS = {
    "HTTP_GET": "http", "SSL_GET": "https", "TCP_CHECK": "tcp", "DNS_CHECK": "dns", "MISC_CHECK": "command",
    "UDP_CHECK": "udp", "PING_CHECK": "icmp",
}  # fmt: skip
NO_PROBE = ("SMTP_CHECK", "BFD_CHECK", "FILE_CHECK")
RETRIES = {"DNS_CHECK": 3, "MISC_CHECK": 0}
INTERVAL_S, TIMEOUT_S = 60, 5


def convert(entries: tuple[Entry, ...]) -> Imported:
    """Return the configuration of the virtual servers in a file's entries."""
    imported = Imported()
    file = Block(entries, imported.left)
    groups = {group.word: group for group in file.all("virtual_server_group")}
    used: set[str] = set()
    for entry in file.all("virtual_server"):
        block = Block(entry.block or (), imported.left, "virtual_server.", entry.line)
        if entry.word == "group" and len(entry.words) > 1 and entry.words[1] in groups:
            used.add(entry.words[1])
            ends = [*_members(groups[entry.words[1]], imported)]
        elif entry.word in ("group", "fwmark"):
            file.leave(entry, ipvs_terms.NO_FIREWALL_MARKS if entry.word == "fwmark" else "there is no such group")
            continue
        else:
            ends = [(entry.word, entry.words[1] if len(entry.words) > 1 else "any")]
        _virtual_server(entry, block, ends, imported)
    for name in groups.keys() - used:
        file.leave(groups[name], "no virtual_server uses it")
    file.leave_rest(dict.fromkeys((entry.key for entry in entries), OUTSIDE))
    return imported


def _members(group: Entry, imported: Imported) -> Iterator[tuple[str, str]]:
    """Yield address and port of a group's lines; `192.0.2.3-10 80` is a range of the last byte (IPv6: 16 bits, hex)."""
    block = Block(group.block or (), imported.left, "virtual_server_group.", group.line)
    for entry in group.block or ():
        block.all(entry.key)
        first, _, last = entry.key.partition("-")
        port = entry.word or "any"
        if entry.key == "fwmark":
            block.leave(entry, ipvs_terms.NO_FIREWALL_MARKS)
        elif not last:
            yield first, port
        else:
            yield from ((address, port) for address in _range(entry, first, last, block))


def _range(entry: Entry, first: str, last: str, block: Block) -> Iterator[str]:
    base, mark = (10, ".") if "." in first else (16, ":")
    head, _, tail = first.rpartition(mark)
    try:
        yield from (
            f"{head}{mark}{n:{'d' if base == 10 else 'x'}}" for n in range(int(tail, base), int(last, base) + 1)
        )
    except ValueError:
        block.leave(entry, "is not a range of addresses")


def _virtual_server(entry: Entry, block: Block, ends: list[tuple[str, str]], imported: Imported) -> None:
    service, is_weighted = _terms(entry, block, imported)
    defaults = {key: block.last(key) for key in ("delay_loop", "connect_timeout", "retry", "virtualhost")}
    backends, health = [], dict[str, Any]()
    block.all("delay_before_retry")
    for real, inner in block.blocks("real_server"):
        weight = inner.number("weight", default=1)
        method = inner.last("lvs_method", "lb_kind")
        tunnel = {} if method is None else _tunnel(method, imported)
        backend = {"dip": real.word, **tunnel} | ({"weight": weight} if is_weighted else {})
        backends.append(backend | ({"port": _port(real.words[1])} if len(real.words) > 1 else {}))
        for_this = defaults | {key: value for key in defaults if (value := inner.last(key)) is not None}
        own = _health(inner, for_this)
        if health and own and own != health:
            inner.leave(real, "its check differs from the first server's, which is in force for all")
        health = health or own
        inner.leave_rest(ENTRY)
    block.leave_rest(ENTRY)
    for vip, port in ends:
        name = f"{vip}-{service['protocol']}-{port}"
        probed = {"health": dict(health)} if health else {}
        known = {"name": name, "vip": vip, **service, "port": _port(port), **probed}
        imported.add(entry.line, known | {"backends": [dict(one) for one in backends]})


def _terms(entry: Entry, block: Block, imported: Imported) -> tuple[dict[str, Any], bool]:
    """Return a service's protocol, hash and tunnel, and whether its scheduler uses weights."""
    protocol = block.word("protocol", default="TCP").lower()
    scheduler = block.word("lvs_sched", "lb_algo", default="wlc").lower()
    service: dict[str, Any] = {"protocol": protocol, "port": 0}
    service |= ipvs_terms.hash_of(scheduler, entry.line, "virtual_server.lb_algo", imported.left)
    if (persistent := block.last("persistence_timeout")) is not None:
        service |= ipvs_terms.persistence(persistent.line, "virtual_server.persistence_timeout", imported.left)
    method = block.last("lvs_method", "lb_kind") or Entry(entry.line, "lb_kind", ("NAT",))
    return service | _tunnel(method, imported), scheduler in ipvs_terms.WEIGHTED


def _tunnel(method: Entry, imported: Imported) -> dict[str, str]:
    fields = ipvs_terms.tunnel_of(method.word, method.line, f"virtual_server.{method.key}", imported.left)
    match [word.lower() for word in method.words[1:]]:
        case ["type", ("gre" | "gue") as kind, *more]:
            fields["tunnel"] = "gre" if kind == "gre" else "gue0"
            if more:
                why = f"{' '.join(more)}: set the file's `tunnel.gue_port`; lbmux sends GUE without checksum"
                imported.left.append(Problem(method.line, f"virtual_server.{method.key}", why))
    return fields


def _port(word: str) -> int | str:
    return int(word) if word.isdecimal() and word != "0" else "any"


def _health(server: Block, defaults: Mapping[str, Entry | None]) -> dict[str, Any]:
    """Return `health` for the first check of a real server that lbmux has, and leave the others out."""
    health: dict[str, Any] = {}
    for entry, check in server.blocks(*KINDS, *NO_PROBE):
        if entry.key in NO_PROBE:
            server.leave(entry, "lbmux has no such probe")
        elif health:
            server.leave(entry, ipvs_terms.ONE_CHECK)
        else:
            health = _probe(entry.key, check, defaults)
            check.leave_rest(CHECK)
    return health


def _probe(key: str, check: Block, defaults: Mapping[str, Entry | None]) -> dict[str, Any]:
    def number(name: str, otherwise: float) -> float:
        above = defaults[name]
        return check.number(name, default=otherwise if above is None else Block([above], check.left).number(
            name, default=otherwise))  # fmt: skip

    retries = number("retry", RETRIES.get(key, 1))
    timeout_s = check.number("misc_timeout", default=INTERVAL_S) if key == "MISC_CHECK" else number(
        "connect_timeout", TIMEOUT_S
    )  # fmt: skip
    interval_s = number("delay_loop", INTERVAL_S)
    more: dict[str, Any] = {"port": check.number("connect_port", default=0)}
    if key in ("HTTP_GET", "SSL_GET"):
        more |= _url(key, check, defaults["virtualhost"])
    elif key == "DNS_CHECK":
        more["query"] = check.word("name", default=".")
    elif key == "MISC_CHECK":
        more = {"command": check.word("misc_path").split()}
    return ipvs_terms.health_of(check, KINDS[key], interval_s, timeout_s, retries, **more)


def _url(key: str, check: Block, host: Entry | None) -> dict[str, Any]:
    """Return path, status and host of the first URL."""
    fields: dict[str, Any] = {}
    above = check.last("virtualhost") or host
    check.all("enable_sni")
    for entry, url in check.blocks("url"):
        if fields:
            check.leave(entry, "lbmux has one URL; this one was not imported")
            continue
        fields = {
            "path": url.word("path", default="/"),
            "host": url.word("virtualhost", default=above.word if above else ""),
        }
        status = url.last("status_code")
        if status is not None and len(status.words) == 1 and status.word.isdecimal():
            fields["status"] = int(status.word)
        else:
            why = "lbmux expects one status; 200 is in force, as it is without status_code"
            url.leave(status or entry, why)
        url.leave_rest(CHECK)
    return fields
