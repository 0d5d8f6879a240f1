"""The pool's configuration from the command line: apply, get, diff, roll back, show, and overrides."""

import asyncio
import io
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from lbmux.cli.main import run
from lbmux.errors import LbmuxError
from lbmux.manager.held_state import NodeState
from tests.manager.running import Running, running_manager, wait_for
from tests.manager.test_pool import file

Out = pytest.CaptureFixture[str]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Running]:
    with running_manager(tmp_path / "manager") as running:
        yield running


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    path = tmp_path / "services.yaml"
    path.write_bytes(file(1, 2))
    return path


def current(manager: Running, number: int) -> None:
    wait_for(lambda: manager.manager.state.revision == number)


def test_a_file_is_applied_changed_and_restored(manager: Running, yaml: Path, capsys: Out) -> None:
    access = manager.options()
    assert run(["apply", str(yaml), "-m", "begin", *access]) == 0
    assert capsys.readouterr().out == "service web: added\nrevision 1\n"
    assert run(["apply", str(yaml), *access]) == 0
    assert capsys.readouterr().out == "no differences\n"
    current(manager, 1)
    assert run(["config", "get", *access]) == 0
    mine = capsys.readouterr().out
    assert mine.startswith("# lbmux revision 1, ") and ", admin: begin\n" in mine
    yaml.write_text(mine + "      - {name: b3, dip: 10.0.0.3}\n")
    assert run(["apply", str(yaml), "--dry-run", *access]) == 0
    assert capsys.readouterr().out == "service web: backend b3 added\n"
    assert run(["apply", str(yaml), *access]) == 0
    assert capsys.readouterr().out == "service web: backend b3 added\nrevision 2\n"
    assert run(["apply", str(yaml), *access]) == 1
    assert "based on revision 1, but revision 2 is current" in capsys.readouterr().err
    assert run(["config", "diff", "1", "2", *access]) == 0
    assert capsys.readouterr().out.startswith("service web: changed: 33.4% of its slots move\n  backend b3: added\n")
    assert run(["rollback", *access]) == 0
    assert capsys.readouterr().out == "service web: backend b3 removed\nrevision 3\n"
    assert run(["show", "revisions", "-j", *access]) == 0
    listed = json.loads(capsys.readouterr().out)["revisions"]
    assert [one["revision"]["rollback_of"] for one in listed] == [1, None, None]
    assert run(["show", "revisions", *access]) == run(["show", "events", "--limit", "1", *access]) == 0
    out = capsys.readouterr().out
    assert "0 of 0" in out and "127.0.0.1" in out and "rollback" in out


async def answers(line: bytes) -> AsyncGenerator[bytes]:
    """Answer nothing: these tests send the node no requests."""
    yield b""


def test_apply_waits_for_all_nodes(manager: Running, yaml: Path, capsys: Out) -> None:
    async def refuse(state: NodeState) -> None:
        if state.revision == 2:
            raise LbmuxError("table full")
        if state.revision == 3:
            await asyncio.Event().wait()

    access = manager.options()
    with manager.joined("mux1", "mux", answers), manager.joined("mux2", "mux", answers, refuse):
        assert run(["apply", str(yaml), "--wait", *access]) == 0
        assert "revision 1 is in force on 2 nodes after " in capsys.readouterr().err
        yaml.write_bytes(file(1, 2, 3))
        assert run(["apply", str(yaml), "--wait", *access]) == 1
        assert "revision 2 is refused by mux2: table full" in capsys.readouterr().err
        assert run(["rollback", "--wait", "--wait-s", "0.2", *access]) == 1
        assert "revision 3 is not in force within 0.2 s on mux2" in capsys.readouterr().err


async def surveyed(line: bytes) -> AsyncGenerator[bytes]:
    """Answer what a manager asks muxes and agents before a change."""
    answer: dict[str, object] = {"program": "agent", "connections": [["web", "b1", 30], ["web", "b2", 10]]}
    if json.loads(line)["command"] == "plan":
        answer = {"program": "mux", "slots_moved": {"web": 0.5}}
    yield json.dumps({"version": 1, "ok": True, "result": answer | {"version": 1}}).encode() + b"\n"


def test_a_dry_run_says_what_would_move(manager: Running, yaml: Path, capsys: Out) -> None:
    access = manager.options()
    run(["apply", str(yaml), *access])
    with manager.joined("mux1", "mux", surveyed), manager.joined("host1", "agent", surveyed):
        yaml.write_bytes(file(1, 2).replace(b"dip: 10.0.0.2", b"port: 8080, dip: 10.0.0.2"))
        capsys.readouterr()
        assert run(["apply", str(yaml), "--dry-run", *access]) == 0
        assert capsys.readouterr().out.splitlines()[-3:] == [
            "service web: 50.0% of its slots move",
            "10 of 40 live connections move (25.0%)",
            "needs --force: 25.0% of the live connections would move; the limit is 10.0%",
        ]
        assert run(["apply", str(yaml), *access]) == 1
        assert "25.0% of the live connections would move" in capsys.readouterr().err


@pytest.mark.slow
def test_apply_waits_for_the_canary(manager: Running, yaml: Path, capsys: Out) -> None:
    async def refuse(state: NodeState) -> None:
        if state.revision == 3:
            raise LbmuxError("table full")

    async def counters(line: bytes) -> AsyncGenerator[bytes]:
        command = json.loads(line)["command"]
        answer: dict[str, object] = {"health": []} if command == "health" else {"verdicts": [], "lookups": {}}
        answer |= {"program": "mux", "version": 1, "ring": None, "pending_neighbours": None, "slowpath": None}
        yield json.dumps({"version": 1, "ok": True, "result": answer}).encode() + b"\n"

    access = [*manager.options(), "--wait"]
    run(["apply", str(yaml), *access[:-1]])
    with manager.joined("mux1", "mux", counters, refuse), manager.joined("mux2", "mux", counters):
        yaml.write_bytes(file(1, 2, 3))
        assert run(["apply", str(yaml), "--canary", "mux1", "--soak", "1s", *access]) == 0
        assert "revision 2 is in force on 2 nodes" in capsys.readouterr().err
        yaml.write_bytes(file(1, 2, 3, 4))
        assert run(["apply", str(yaml), "--canary", "mux1", "--soak", "1s", *access]) == 1
        said = "revision 3 was replaced by revision 4: canary mux1 of revision 3: mux1 refuses it: table full"
        assert said in capsys.readouterr().err
        assert run(["apply", str(yaml), "--canary", "mux9", *access]) == 1
        assert "mux mux9 is not connected" in capsys.readouterr().err


def test_errors_have_file_and_line(manager: Running, yaml: Path, capsys: Out) -> None:
    yaml.write_text("services: 5\n")
    assert run(["apply", str(yaml), *manager.options()]) == 1
    assert f"lbmux: {yaml}:1: services: should be a list" in capsys.readouterr().err
    assert run(["apply", str(yaml.with_name("no.yaml")), *manager.options()]) == 1
    assert "no.yaml: cannot be read: No such file" in capsys.readouterr().err
    assert run(["apply", "/dev/zero", *manager.options()]) == 1
    assert "/dev/zero: cannot be read: it is not a regular file" in capsys.readouterr().err


def test_a_dangerous_change_needs_force(manager: Running, yaml: Path, capsys: Out) -> None:
    access = manager.options()
    run(["apply", str(yaml), *access])
    yaml.write_bytes(b"services: []\n")
    assert run(["apply", str(yaml), *access]) == 1
    reason = "service web: removed, with 2 backends"
    assert capsys.readouterr().err.endswith(f"the change needs --force:\nlbmux: {reason}\n")
    assert run(["apply", str(yaml), "--dry-run", *access]) == 0
    assert f"needs --force: {reason}" in capsys.readouterr().out
    assert run(["apply", str(yaml), "--force", "-j", *access]) == 0
    assert json.loads(capsys.readouterr().out)["revision"]["forced"] is True


def test_one_service_from_standard_input(manager: Running, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    access = manager.options()
    for text, more in ((b"# ours\n" + file(1), []), (file(1, 2), ["--service", "web"])):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
        assert run(["apply", "-", *more, *access]) == 0
    current(manager, 2)
    assert manager.manager.state.text == b"# ours\n" + file(1, 2)


def test_overrides_go_to_the_manager(manager: Running, yaml: Path, capsys: Out) -> None:
    access = manager.options()
    run(["apply", str(yaml), *access])
    capsys.readouterr()
    assert run(["disable", "--host", "10.0.0.1", "--force", *access]) == 0
    assert capsys.readouterr().out.startswith("web/b1: disable")
    assert run(["enable", "--host", "10.0.0.1", *access]) == 0
    assert run(["drain", "--host", "10.0.0.77", *access]) == 1
    assert "host 10.0.0.77: no backend is on it" in capsys.readouterr().err
    assert run(["drain", "b1", "--host", "10.0.0.1", *access]) == 2
    assert run(["drain", "b1", "--for", "2h", "--reason", "new disk", *access]) == 0
    assert capsys.readouterr().out.startswith("web/b1: drain, until 20")
    assert run(["disable", "b1", "--deadline", "1h", *access]) == 2
    assert "No such option" in capsys.readouterr().err
    assert run(["drain", "b1", "--for", "2h", "--deadline", "10m", "--reason", "new disk", *access]) == 0
    assert ", disabled at 20" in capsys.readouterr().out
    assert run(["weight", "b2", "7", *access]) == run(["add", "web", "10.0.0.9", "--weight", "2", *access]) == 0
    assert capsys.readouterr().out == "web/b2: weight 7\nweb/10.0.0.9:80: added\n"
    wait_for(lambda: len(manager.manager.state.overrides) == 3)
    assert run(["show", "overrides", *access]) == 0
    assert "new disk" in capsys.readouterr().out
    assert run(["enable", "b1", "-j", *access]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": 7, "overrides": [], "routes": []}
    assert run(["disable", "b8", *access]) == 1
    assert "no backend b8" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["apply", "x.yaml"], ["rollback"], ["config", "get"], ["show", "events"]])
def test_without_a_manager(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("")
    assert run(words) == 2
    assert "--manager or LBMUX_MANAGER" in capsys.readouterr().err


def test_no_manager_answers(manager: Running, capsys: Out) -> None:
    access = manager.options()
    access[1] = "https://127.0.0.1:1"
    assert run(["rollback", *access]) == 1
    assert capsys.readouterr().err == "lbmux: https://127.0.0.1:1: Connection refused\n"
    assert run(["show", "events", "-j", "--manager", access[1], *manager.options()]) == 0  # tries the next manager
