"""`lbmux withdraw` and `lbmux announce` with a manager."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.api.control_server import ControlServer
from lbmux.cli.main import run
from tests.manager.running import Running, running_manager
from tests.manager.test_pool import file

Out = pytest.CaptureFixture[str]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Running]:
    with running_manager(tmp_path) as running:
        (tmp_path / "services.yaml").write_bytes(file(1, 2))
        assert run(["apply", str(tmp_path / "services.yaml"), *running.options()]) == 0
        yield running


def test_a_vip_is_withdrawn_and_announced_again(manager: Running, capsys: Out) -> None:
    access = manager.options()
    capsys.readouterr()
    assert run(["withdraw", "192.0.2.1", "--for", "2h", "--reason", "attack", *access]) == 0
    assert capsys.readouterr().out.startswith("192.0.2.1: withdrawn at all muxes and edges, until 20")
    assert run(["show", "overrides", *access]) == 0
    assert "attack" in capsys.readouterr().out
    assert run(["announce", "192.0.2.1", "--prepend", "2", "-j", *access]) == 0
    (stored,) = json.loads(capsys.readouterr().out)["routes"]
    assert (stored["announcement"]["held"], stored["announcement"]["prepended"], stored["until"]) == (False, 2, None)
    assert run(["announce", *access]) == 0
    assert capsys.readouterr().out == "announced as in the file\n"
    assert manager.manager.pool.state.stored.routes == ()


def test_what_is_wrong_is_refused(manager: Running, capsys: Out) -> None:
    access = manager.options()
    assert run(["withdraw", *access]) == 2
    assert "give a VIP, or the nodes with --node" in capsys.readouterr().err
    assert run(["withdraw", "192.0.2.9", *access]) == 1
    assert "no service has the VIP 192.0.2.9" in capsys.readouterr().err
    assert run(["withdraw", "192.0.2.1", "--for", "1h", "--control", "mux.sock"]) == 2
    assert "--for needs a manager" in capsys.readouterr().err


def test_nodes_are_named_by_a_pattern(manager: Running, tmp_path: Path, capsys: Out) -> None:
    access, server = manager.options(), ControlServer(tmp_path / "node.sock", {})
    with (
        manager.joined("mux1", "mux", server.answers),
        manager.joined("mux2", "mux", server.answers),
        manager.joined("mox", "agent", server.answers),
    ):
        capsys.readouterr()
        assert run(["withdraw", "--node", "m*", *access]) == 0
        assert capsys.readouterr().out == "all VIPs: withdrawn at mux1\nall VIPs: withdrawn at mux2\n"
        assert run(["announce", "--node", "mux1", *access]) == 0
        assert [one.node for one in manager.manager.pool.state.stored.routes] == ["mux2"]


def test_a_token_limited_to_services_needs_all_of_the_vip(manager: Running, capsys: Out) -> None:
    access = manager.options()
    for services, code in ((["web"], 0), (["other"], 1)):
        capsys.readouterr()
        options = [word for name in services for word in ("--service", name)]
        assert run(["manager", "token", f"of-{services[0]}", "--role", "operator", *options, *access]) == 0
        (manager.directory / "limited").write_text(capsys.readouterr().out.strip().splitlines()[-1])
        limited = [*access, "--token-file", str(manager.directory / "limited")]
        assert run(["withdraw", "192.0.2.1", *limited]) == code
        assert run(["announce", *limited]) == 1
