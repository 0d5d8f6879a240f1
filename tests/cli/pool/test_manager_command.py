"""`lbmux manager`: a real process, from `init` to a backup that is restored into etcd."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lbmux.cli.main import run
from lbmux.manager.identity import Identity
from tests.lbmux_command import beside
from tests.manager.etcd_server import Etcd, etcd_server, free_ports
from tests.manager.running import Running, running_manager, wait_for
from tests.manager.test_pool import file

Out = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with etcd_server() as server:
        yield server


@contextmanager
def process(*words: str) -> Iterator[None]:
    """`lbmux manager` with these options, once it says that it runs; it is ended by SIGTERM, and must end well."""
    with beside("manager", *words) as manager:
        manager.wait_for(" of pool ")
        yield
        manager.process.send_signal(signal.SIGTERM)
        assert manager.process.wait(10) == 0


def answers(access: list[str], capsys: Out) -> bool:
    events = run(["show", "events", "-j", *access])
    return events == 0 and '"primary"' in capsys.readouterr().out


def whole_pool(access: list[str], capsys: Out) -> dict[str, Any]:
    """Return all that a store keeps of a pool, but for its elections."""
    found = {}
    for words in (("show", "revisions"), ("show", "overrides"), ("show", "events"), ("manager", "tokens")):
        assert run([*words, "-j", *access]) == 0
        found[words[1]] = json.loads(capsys.readouterr().out)[words[1]]
    found["events"] = [one for one in found["events"] if one["kind"] != "primary"]
    return found


def make_changes(services: Path, access: list[str]) -> None:
    """Make two revisions, an override and a token."""
    for numbers, message in ((1, 2), "two"), ((1, 2, 3), "b3 added"):
        services.write_bytes(file(*numbers))
        assert run(["apply", str(services), "-m", message, *access]) == 0
    assert run(["weight", "b1", "5", "--reason", "new disk", *access]) == 0
    assert run(["manager", "token", "ci", "--role", "operator", *access]) == 0


def assert_made(before: dict[str, Any]) -> None:
    """Look for these changes, and for a drain after them, in what `whole_pool` returns."""
    assert [one["revision"]["message"] for one in before["revisions"]] == ["b3 added", "two"]
    assert [(one["weight"], one["admin_state"], one["reason"]) for one in before["overrides"]] == [
        (5, None, "new disk"), (None, "drain", ""),
    ]  # fmt: skip
    assert sorted(one["name"] for one in before["tokens"]) == ["admin", "ci"]
    assert [one["kind"] for one in before["events"]] == ["override", "token", "override", "apply", "apply"]


@pytest.mark.slow
def test_a_pool_moves_from_a_file_to_etcd_and_back(tmp_path: Path, etcd: Etcd, capsys: Out) -> None:
    (port,), state, services = free_ports(1), tmp_path / "m1", tmp_path / "services.yaml"
    store = ["--store", str(state), "--state", str(state)]
    assert run(["manager", "init", *store, "--name", "m1", "--address", "127.0.0.1"]) == 0
    assert (state / "admin.token").stat().st_mode & 0o777 == 0o600
    access = ["--manager", f"127.0.0.1:{port}", "--manager-ca", str(state / "ca.crt")]
    access += ["--token-file", str(state / "admin.token")]
    listen = ["--state", str(state), "--listen", f"127.0.0.1:{port}", "--advertise", f"https://127.0.0.1:{port}"]
    with process("--store", str(state), *listen):
        wait_for(lambda: answers(access, capsys))
        make_changes(services, access)
        assert run(["manager", "backup", str(tmp_path / "backup"), *access]) == 0
    tls = ["--etcd-ca", str(etcd.tls.authority), "--etcd-cert", str(etcd.tls.certificate)]
    tls += ["--etcd-key", str(etcd.tls.key)]
    there = f"etcd://{etcd.endpoint}/moved"
    assert run(["manager", "migrate", there, *store[:2], *tls]) == 0
    with process("--store", there, *tls, *listen):
        wait_for(lambda: run(["config", "get", *access]) == 0)  # its first events are the former primary's
        assert capsys.readouterr().out.encode().endswith(file(1, 2, 3))
        wait_for(lambda: run(["drain", "b2", *access]) == 0)
        capsys.readouterr()
        before = whole_pool(access, capsys)
    assert_made(before)
    back = str(tmp_path / "back")
    assert run(["manager", "migrate", back, "--store", there, *tls]) == 0
    with process("--store", back, *listen):
        wait_for(lambda: run(["config", "get", *access]) == 0)
        assert capsys.readouterr().out.encode().endswith(file(1, 2, 3))
        assert whole_pool(access, capsys) == before
    assert run(["manager", "restore", str(tmp_path / "backup"), "--store", str(tmp_path / "again")]) == 0
    assert "entries restored" in capsys.readouterr().out
    assert run(["manager", "restore", str(tmp_path / "backup"), "--store", str(tmp_path / "again")]) == 1
    assert "not empty" in capsys.readouterr().err


def test_a_store_without_a_pool(tmp_path: Path, capsys: Out) -> None:
    options = ["--state", str(tmp_path / "a"), "--listen", "127.0.0.1:0"]
    assert run(["manager", "--store", str(tmp_path / "a"), *options]) == 1
    assert "run `lbmux manager init`" in capsys.readouterr().err and not (tmp_path / "a").exists()
    assert run(["manager", "init", "--store", str(tmp_path / "b"), "--state", str(tmp_path / "a")]) == 0
    assert run(["manager", "--store", str(tmp_path / "c"), *options]) == 1
    assert "it has no pool (run `lbmux manager init` once" in capsys.readouterr().err
    assert run(["manager", "init", "--store", str(tmp_path / "d"), "--state", str(tmp_path / "e")]) == 0
    assert run(["manager", "--store", str(tmp_path / "d"), *options]) == 1
    assert "it is of manager" in capsys.readouterr().err


def test_options_for_etcd_are_given_together(capsys: Out) -> None:
    assert run(["manager", "backup", "x", "--etcd-ca", "ca.crt"]) == 2
    assert "are given together" in capsys.readouterr().err


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Running]:
    with running_manager(tmp_path / "manager") as running:
        yield running


def test_a_node_joins_with_a_printed_token(manager: Running, tmp_path: Path, capsys: Out) -> None:
    access, file = manager.options(), tmp_path / "join"
    assert run(["manager", "join-token", "mux1", "--for", "10m", *access]) == 0
    file.write_text(capsys.readouterr().out)
    words = ["join", "--manager", manager.url, "--join-token-file", str(file), "--state", str(tmp_path / "mux1")]
    assert run(words) == 0
    assert capsys.readouterr().out.startswith(f"joined pool {manager.manager.pool_id} as mux1")
    assert Identity(tmp_path / "mux1").subject.role == "node"
    assert run([*words[:-1], str(tmp_path / "mux2")]) == 1
    assert "unknown" in capsys.readouterr().err


def test_tokens_are_made_listed_and_revoked(manager: Running, capsys: Out) -> None:
    access = manager.options()
    assert run(["manager", "token", "ci", "--role", "operator", "--service", "web", "--for", "7d", *access]) == 0
    number = capsys.readouterr().out.split("_")[1]
    assert run(["manager", "tokens", *access]) == 0
    assert "operator" in capsys.readouterr().out
    assert run(["manager", "revoke", number, *access]) == 0
    capsys.readouterr()
    assert run(["manager", "tokens", "-j", *access]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["tokens"]] == ["admin"]
    assert run(["manager", "token", "x", "--for", "8 days", *access]) == 2
    assert "is not a time such as 30s" in capsys.readouterr().err
