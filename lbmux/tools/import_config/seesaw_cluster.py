"""Seesaw's cluster.pb as a configuration: each address family of each vserver_entry becomes a service.

Source: google/seesaw, pb/config/config.proto.
"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_interface
from typing import Any

from lbmux.config.health_models import PROBE_PROTOCOLS
from lbmux.tools.import_config import ipvs_terms
from lbmux.tools.import_config.entries import Block, Entry
from lbmux.tools.import_config.imported import Imported

ROOT = {
    "seesaw_vip": "lbmux has no address that moves between muxes: routers spread over muxes by BGP",
    "vmac": "lbmux has no address that moves between muxes",
    "bgp_local_asn": "an option: `lbmux mux --bgp-as`",
    "bgp_remote_asn": "an option: `lbmux mux --bgp-peer ADDRESS:AS`",
    "bgp_peer": "an option: `lbmux mux --bgp-peer ADDRESS:AS`",
    "vlan": "lbmux takes interfaces from the machine and next hops from its routes",
    "misconfigured_vserver": "Seesaw's own list of broken vservers",
    "metadata": "is about the file itself",
    "dedicated_vip_subnet": "lbmux announces each VIP by itself",
    "access_groups": "roles belong to tokens: `lbmux manager token`",
}
VSERVER = {
    "rp": "lbmux has no field for the people in charge; use a comment",
    "access_grant": "roles belong to tokens: `lbmux manager token`",
    "warning": "is about the file itself",
    "use_fwm": ipvs_terms.NO_FIREWALL_MARKS,
}
WITHDRAWS = (
    "Seesaw takes the VIP out below it; lbmux's `health.watermark` keeps all backends instead, and `on_no_backend: "
    "withdraw` acts without any"
)
ENTRY = {
    "quiescent": "flows of a backend that fails move, see `on_down`; `lbmux drain` keeps them",
    "server_low_watermark": WITHDRAWS,
    "server_high_watermark": WITHDRAWS,
    "lthreshold": "lbmux does not count connections of a backend",
    "uthreshold": "lbmux does not count connections of a backend",
    "one_packet": "datagrams of a flow stay with its backend",
}
NAME_ONLY = {"fqdn": "lbmux works with addresses; a comment can name them"}
CHECK = {
    "method": "lbmux sends GET; for DNS it asks for A, and for NS of the root",
    "proxy": "lbmux's probes do not speak to proxies",
    "code": "is for HTTP and HTTPS",
    "tls_verify": "is for HTTPS and TCP_TLS",
    "send": "lbmux's probe of this kind sends no text",
    "receive": "lbmux's probe of this kind expects no text",
    "mode": "`through: tunnel` needs the service's own protocol and port; the backend is probed directly",
}
KINDS = {
    "ICMP_PING": "icmp", "UDP": "udp", "TCP": "tcp", "HTTP": "http", "HTTPS": "https", "DNS": "dns", "TCP_TLS": "tls",
}  # fmt: skip
TEXTS = {"http": ("path", "body"), "https": ("path", "body"), "udp": ("send", "expect"), "dns": ("query", "")}
"""Fields of `health` for a check's `send` and `receive`."""
PROBES: Mapping[str, str] = {str(kind): protocol for kind, protocol in PROBE_PROTOCOLS.items()}
Checks = list[tuple[Entry, Block]]


def convert(entries: tuple[Entry, ...]) -> Imported:
    """Return the configuration of a cluster, given as the entries of its file."""
    imported = Imported()
    cluster = Block(entries, imported.left)
    for _, node in cluster.blocks("node"):
        imported.muxes += _addresses(node).values()
    for entry, vserver in cluster.blocks("vserver"):
        _vserver(entry, vserver, imported)
    cluster.leave_rest(ROOT)
    return imported


def _addresses(host: Block) -> dict[str, str]:
    """Take the addresses of a Host by their family, `ipv4` and `ipv6`, without prefix lengths."""
    addresses: dict[str, str] = {}
    for family in ("ipv4", "ipv6"):
        entry = host.last(family)
        try:
            addresses |= {family: str(ip_interface(entry.word).ip)} if entry else {}
        except ValueError:
            assert entry is not None
            host.leave(entry, f"{entry.word} is not an address")
    status = host.last("status")
    if status is not None and status.word != "PRODUCTION":
        host.leave(status, f"{status.word}: lbmux has no such state; it is in use")
    host.leave_rest(NAME_ONLY)
    return addresses


def _vserver(entry: Entry, vserver: Block, imported: Imported) -> None:
    name = vserver.word("name", default=f"line-{entry.line}")
    vips = {family: at for _, host in vserver.blocks("entry_address") for family, at in _addresses(host).items()}
    backends, common = [*_backends(vserver)], [*vserver.blocks("healthcheck")]
    common_health: dict[str, Any] | None = None
    for at, block in vserver.blocks("vserver_entry"):
        service, is_weighted = _terms(at, block, imported)
        health = _health([*block.blocks("healthcheck")], service)
        if not health and common_health is None:
            common_health = _health(common, {})
        health = health or dict(common_health or {})
        block.leave_rest(ENTRY)
        for family, vip in vips.items():
            named = f"{name}-{service['protocol']}-{service['port']}" + (f"-{family}" if len(vips) > 1 else "")
            mine = [
                {"name": fqdn, "dip": addresses[family]} | ({"weight": weight} if is_weighted else {})
                for fqdn, addresses, weight in backends if family in addresses
            ]  # fmt: skip
            probed = {"health": dict(health)} if health else {}
            imported.add(at.line, {"name": named, "vip": vip, **service, **probed, "backends": mine})
    for check, _ in common if common_health is None else ():
        vserver.leave(check, ipvs_terms.ONE_CHECK)
    vserver.leave_rest(VSERVER)


def _backends(vserver: Block) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield name, addresses by family and weight of each backend in production."""
    for entry, backend in vserver.blocks("backend"):
        weight = backend.number("weight", default=1)
        for at, host in backend.blocks("host"):
            name = host.word("fqdn", default=f"line-{entry.line}").rstrip(".")
            status = next((one.word for one in at.block or () if one.key == "status"), "PRODUCTION")
            if status == "PRODUCTION":
                yield name, _addresses(host), weight
            else:
                backend.leave(at, f"{name} is {status}")
        backend.leave_rest({})


def _terms(entry: Entry, block: Block, imported: Imported) -> tuple[dict[str, Any], bool]:
    """Return a service's protocol, port, hash and tunnel, and whether its scheduler uses weights."""
    field = "vserver.vserver_entry"
    service: dict[str, Any] = {
        "protocol": block.word("protocol").lower(), "port": block.number("port", default=0)
    }  # fmt: skip
    scheduler = block.word("scheduler", default="WLC").lower()
    service |= ipvs_terms.hash_of(scheduler, entry.line, f"{field}.scheduler", imported.left)
    if block.number("persistence", default=0):
        service |= ipvs_terms.persistence(entry.line, f"{field}.persistence", imported.left)
    service |= ipvs_terms.tunnel_of(block.word("mode", default="DSR"), entry.line, f"{field}.mode", imported.left)
    return service, scheduler in ipvs_terms.WEIGHTED


def _health(checks: Checks, service: dict[str, Any]) -> dict[str, Any]:
    """Return `health` for the first check that lbmux has, and leave the others out. ``service``: whose port it may be;
    empty if there are several."""
    health: dict[str, Any] = {}
    for entry, check in checks:
        kind = check.word("type")
        if kind not in KINDS:
            check.leave(entry, f"{kind}: lbmux has no such probe")
        elif health:
            check.leave(entry, ipvs_terms.ONE_CHECK)
        else:
            health = _probe(KINDS[kind], check, service)
            check.leave_rest(CHECK)
    return health


def _probe(kind: str, check: Block, service: dict[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {"port": check.number("port", default=0)}
    for key, name in zip(("send", "receive"), TEXTS.get(kind, ("", "")), strict=True):
        if name:
            more[name] = check.word(key)
    if kind in ("http", "https"):
        more["status"] = check.number("code", default=0)
        if (method := check.last("method")) is not None and method.word.upper() != "GET":
            check.leave(method, CHECK["method"])
    if kind == "dns" and (method := check.last("method")) is not None and method.word.upper() != "A":
        check.leave(method, CHECK["method"])
    if kind in ("https", "tls"):
        more["verify"] = check.word("tls_verify", default="true") == "true"
    own = service and PROBES.get(kind) == service["protocol"] and more["port"] in (0, service["port"])
    if (mode := check.last("mode")) is not None and mode.word == "DSR":
        if own:
            more = {"through": "tunnel"} | more | {"port": 0}
        else:
            check.leave(mode, CHECK["mode"])
    interval_s, timeout_s = check.number("interval", default=10), check.number("timeout", default=5)
    return ipvs_terms.health_of(check, kind, interval_s, timeout_s, check.number("retries", default=0), **more)
