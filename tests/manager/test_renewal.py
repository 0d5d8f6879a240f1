"""Certificates are renewed after two thirds of their life: by a manager, or by the one that has the CA's key."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lbmux.errors import LbmuxError
from lbmux.manager import renewal
from lbmux.manager.authority import (
    KeyPair,
    Subject,
    ends_at,
    is_renewal_due,
    issue,
    names_in,
    new_authority,
    new_key,
    new_request,
    subject_of,
)
from lbmux.manager.identity import Identity
from lbmux.manager.renewal import keep_valid, renew
from tests.manager.running import running_manager

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def own(path: Path, ca: KeyPair, subject: Subject, begin: datetime, *, with_ca: bool = False) -> Identity:
    identity, key = Identity(path), new_key()
    request = new_request(key, "localhost", ["127.0.0.1", "::1"])
    pair = KeyPair(issue(ca, request, subject, begin, days=30), key)
    identity.write(ca.certificate, pair, ca.key if with_ca else None)
    return identity


@pytest.mark.parametrize(("days", "due"), [(0, False), (19.9, False), (20.1, True), (40, True)])
def test_it_is_due_after_two_thirds(days: float, due: bool) -> None:
    ca = new_authority("p", NOW)
    certificate = issue(ca, new_request(new_key(), "mux1"), Subject("p", "node", "mux1"), NOW, days=30)
    assert is_renewal_due(certificate, NOW + timedelta(days=days)) is due


def test_the_one_with_the_key_signs_its_own(tmp_path: Path) -> None:
    identity = own(tmp_path, new_authority("p", NOW), Subject("p", "manager", "m1"), NOW, with_ca=True)
    before = identity.certificate
    renew(identity, [], NOW + timedelta(days=25))
    assert ends_at(identity.certificate) == NOW + timedelta(days=115)
    assert subject_of(identity.certificate) == subject_of(before)
    assert names_in(identity.certificate) == ["m1", "localhost", "127.0.0.1", "::1"]


def test_a_node_asks_until_a_manager_has_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_manager(tmp_path / "manager") as manager:
        ca, pool = manager.manager.identity.authority, manager.manager.pool_id
        assert ca is not None
        node = own(tmp_path / "node", ca, Subject(pool, "node", "mux1"), datetime.now(UTC) - timedelta(days=25))
        before = node.certificate
        with pytest.raises(LbmuxError, match="Connection refused"):
            renew(node, ["https://127.0.0.1:1"], NOW)
        (manager.directory / "ca.key").rename(manager.directory / "ca.moved")
        with pytest.raises(LbmuxError, match="has no CA key"):
            renew(node, [manager.url], NOW)
        (manager.directory / "ca.moved").rename(manager.directory / "ca.key")
        assert node.certificate == before
        asyncio.run(once(node, lambda: ["https://127.0.0.1:1", manager.url]))
        assert node.certificate != before and not is_renewal_due(node.certificate, datetime.now(UTC))


async def once(identity: Identity, urls: Callable[[], list[str]]) -> None:
    renewed = asyncio.Event()
    keeping = asyncio.create_task(keep_valid(identity, urls, renewed.set))
    async with asyncio.timeout(10):
        await renewed.wait()
    keeping.cancel()


def test_a_failure_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    monkeypatch.setattr(renewal, "CHECK_S", 0.01)
    begin = datetime.now(UTC) - timedelta(days=25)
    identity = own(tmp_path, new_authority("p", begin), Subject("p", "node", "mux1"), begin)
    tries: list[int] = []

    def fail(*given: object) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise LbmuxError("no manager")

    monkeypatch.setattr(renewal, "renew", fail)
    asyncio.run(once(identity, lambda: []))
    assert caplog.text.count("the certificate is not renewed: no manager") == 2
