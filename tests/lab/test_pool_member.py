"""The pool of a lab with managers: made once, with a certificate for each node, and its first revision."""

import asyncio
from pathlib import Path

import pytest

from lbmux.errors import LabError
from lbmux.lab import pool_member
from lbmux.lab.pool_member import etcd_command, first, wait_for
from lbmux.manager.authority import Subject
from lbmux.manager.identity import Identity
from lbmux.manager.pool_state import load_state
from lbmux.manager.store.open_store import open_store
from tests.manager.test_pool import file


def test_the_pool_has_certificates_and_a_revision(tmp_path: Path) -> None:
    config, pool, store = tmp_path / "services.yaml", tmp_path / "pool", str(tmp_path / "pool" / "store")
    config.write_bytes(file(1, 2))
    for _ in range(2):  # as after a manager's restart
        first(pool, config, store, ["10.2.1.2", "10.2.2.2"], ["mux1", "host1"])
    own = Identity(pool / "manager1").subject
    for name, role in (("manager2", "manager"), ("mux1", "node"), ("host1", "node")):
        wait_for(Identity(pool / name))
        assert Identity(pool / name).subject == Subject(own.pool, role, name)
    assert "LBMUX_MANAGER='https://10.2.1.2:7443 https://10.2.2.2:7443'" in (pool / "env").read_text()
    assert {oct((pool / name).stat().st_mode)[-3:] for name in ("token", "health.token")} == {"600"}

    async def state() -> int:
        async with open_store(store) as opened:
            return (await load_state(opened)).revision

    assert asyncio.run(state()) == 1


def test_a_node_without_a_certificate_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_member, "WAIT_S", 0.0)
    with pytest.raises(LabError, match="mux1: no certificate within 0 s"):
        wait_for(Identity(tmp_path / "mux1"))


def test_managers_reach_their_member_on_loopback_only() -> None:
    words = etcd_command("manager1", "10.2.1.2", "/data", "manager1=http://10.2.1.2:2380")
    assert words[words.index("--listen-client-urls") + 1] == "http://127.0.0.1:2379"
    assert words[words.index("--listen-peer-urls") + 1] == "http://10.2.1.2:2380"
