"""Opens the store that `--store` names: a directory (SQLite), or `etcd://HOST:PORT,...[/ROOT]`."""

import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from lbmux.errors import SetupError
from lbmux.manager.store.etcd_store import EtcdStore
from lbmux.manager.store.sqlite_store import SqliteStore
from lbmux.manager.store.store import Store

ETCD = "etcd://"


@dataclass(frozen=True)
class EtcdTls:
    """Files in PEM: the CA of the members, and the client's certificate and key."""

    authority: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.authority)
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            hint = "check the files of --etcd-ca, --etcd-cert and --etcd-key"
            raise SetupError("TLS to etcd", str(error), hint) from error
        return context


def open_store(where: str, tls: EtcdTls | None = None) -> Store:
    """Return the store, which is opened by ``async with``; raise SetupError if ``where`` is not one."""
    if not where.startswith(ETCD):
        return SqliteStore(Path(where))
    members, _, root = where.removeprefix(ETCD).partition("/")
    endpoints = members.split(",")
    if not all(endpoint.rpartition(":")[0] and endpoint.rpartition(":")[2].isdecimal() for endpoint in endpoints):
        raise SetupError(f"store {where}", "is not etcd://HOST:PORT,...", "list the members' client addresses")
    if tls is None and not all(_is_loopback(endpoint.rpartition(":")[0]) for endpoint in endpoints):
        hint = "give --etcd-ca, --etcd-cert and --etcd-key"
        raise SetupError(f"store {where}", "members on other machines need TLS with a client certificate", hint)
    return EtcdStore(endpoints, tls.context() if tls else None, f"{root.strip('/') or 'lbmux'}/")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
