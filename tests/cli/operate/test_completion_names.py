"""Names that completion offers: of what is in force, of a file, and of the lab."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.shell_completion import ShellComplete

from lbmux.api.answers import Backends, Health
from lbmux.api.requests import GetBackends, GetHealth
from lbmux.cli.main import group
from tests.api.answering import answering, said
from tests.api.lines import backend_line, health_line
from tests.linux.inside import CONFIG

KEYS = [("web", "h1"), ("web", "h2"), ("dns", "n1")]
OUT = [("web", "removed1")]


def offered(*words: str) -> list[str]:
    completion = ShellComplete(group, {}, "lbmux", "_LBMUX_COMPLETE")
    return [item.value for item in completion.get_completions([*words[:-1]], words[-1])]


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    backends = Backends(1, "mux", [backend_line(service=service, backend=name) for service, name in KEYS])
    health = Health(1, "mux", [health_line(service=service, backend=name) for service, name in KEYS + OUT])
    monkeypatch.delenv("LBMUX_CONFIG", raising=False)
    with answering(tmp_path / "mux.sock", {GetBackends: said(backends), GetHealth: said(health)}):
        yield str(tmp_path / "mux.sock")


@pytest.mark.parametrize("verb", ["drain", "enable", "disable", "remove", "weight"])
def test_backends_in_force_and_those_that_are_out(control: str, verb: str) -> None:
    assert offered(verb, "--control", control, "") == ["h1", "h2", "n1", "removed1"]
    assert offered(verb, "--control", control, "--service", "dns", "") == ["n1"]
    assert offered(verb, "--control", control, "h") == ["h1", "h2"]


def test_services(control: str) -> None:
    assert offered("add", "--control", control, "") == ["web", "dns"]
    assert offered("drain", "--control", control, "--service", "w") == ["web"]
    assert offered("show", "backends", "--control", control, "--service", "") == ["web", "dns"]
    assert offered("show", "backends", "--control", control, "--backend", "n") == ["n1"]


def test_without_a_daemon_the_file_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lbmux.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.setenv("LBMUX_CONFIG", str(tmp_path / "lbmux.yaml"))
    assert offered("add", "--control", str(tmp_path / "none.sock"), "") == ["web", "dns"]


def test_without_daemon_and_file_no_names_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LBMUX_CONFIG", raising=False)
    assert offered("drain", "--control", str(tmp_path / "none.sock"), "") == []


def test_systems_and_events_of_the_lab() -> None:
    balanced = ["cloudflare-balanced", "cloudflare-balanced-ipv6"]
    assert offered("lab", "run", "cloudf") == ["cloudflare", "cloudflare-anycast", *balanced]
    assert "all" in offered("lab", "run", "")
    assert offered("lab", "run", "ananta", "kill-mu") == ["kill-mux"]
    assert offered("lab", "run", "ananta", "kill-mux", "kill-mux+add-b") == ["kill-mux+add-backend"]
    assert offered("lab", "up", "ananta-f") == ["ananta-frr"]


def test_nodes_of_the_lab() -> None:
    name = f"names-{os.getpid()}"  # no lab is up: complete the nodes that it would have
    assert offered("lab", "exec", "--name", name, "mux") == ["mux1", "mux2"]
