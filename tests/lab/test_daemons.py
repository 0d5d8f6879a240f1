"""Daemons of others that the lab runs: what is said where one is not installed."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from lbmux.lab import bird_router, frr_router, haproxy, keepalived

PEER = ["--local", "10.0.1.1", "--peer", "10.0.1.2"]
VRRP = ["--interface", "eth0", "--address", "10.0.0.10/24", "--priority", "101", "--control", "mux.sock"]
PROXY = ["--web-port", "80", "--echo-port", "7", "--server", "a1", "10.2.1.2", "8080", "8007"]


@pytest.mark.parametrize(
    ("module", "arguments", "package"),
    [
        (bird_router, PEER, "bird2"),
        (frr_router, PEER, "frr"),
        (haproxy, PROXY, "haproxy"),
        (keepalived, VRRP, "keepalived"),
    ],
)
def test_a_daemon_that_is_not_installed_is_named_with_its_package(
    module: ModuleType, arguments: list[str], package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEARCH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "directory"), *arguments])
    with pytest.raises(SystemExit, match=f"not installed: install the package {package}$"):
        module.main()
    assert not any(tmp_path.iterdir())  # nothing was created for it
