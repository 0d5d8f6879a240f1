"""What `--store` may say."""

from pathlib import Path

import pytest

from lbmux.errors import SetupError
from lbmux.manager.store.etcd_store import EtcdStore
from lbmux.manager.store.open_store import EtcdTls, open_store
from lbmux.manager.store.sqlite_store import SqliteStore


def test_a_path_is_sqlite_and_a_url_etcd(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path)), SqliteStore)
    assert isinstance(open_store("etcd://127.0.0.1:2379,[::1]:2379,localhost:2379/pool2"), EtcdStore)


@pytest.mark.parametrize("where", ["etcd://", "etcd://host", "etcd://host:2379,", "etcd://host:x"])
def test_a_url_that_is_not_one(where: str) -> None:
    with pytest.raises(SetupError, match="HOST:PORT"):
        open_store(where)


def test_another_machine_needs_tls() -> None:
    with pytest.raises(SetupError, match="client certificate"):
        open_store("etcd://127.0.0.1:2379,192.0.2.1:2379")


def test_files_that_are_missing(tmp_path: Path) -> None:
    tls = EtcdTls(tmp_path / "ca", tmp_path / "crt", tmp_path / "key")
    with pytest.raises(SetupError, match="--etcd-ca"):
        open_store("etcd://192.0.2.1:2379", tls)
