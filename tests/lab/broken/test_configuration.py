"""Files and muxes that do not agree, and control sockets without a daemon."""

import json
from pathlib import Path
from typing import Any

import pytest

from lbmux.lab.topology import VIP
from tests.lab.broken.broken import Broken

pytestmark = pytest.mark.root


def test_two_muxes_with_different_configurations(pool: Broken) -> None:
    def heavier(config: dict[str, Any]) -> None:
        config["services"][0]["backends"][0]["weight"] = 7

    with pool.config(heavier, "mux1"):
        report = pool.doctor("mux1", "mux2")
        assert report.says("pool", "mux2.sock has different tables for web (192.0.2.1 tcp 80)")
        assert report.says("in force", "service web: backend h1 changed", "warning")


def test_a_peer_that_does_not_answer(pool: Broken) -> None:
    assert pool.doctor("mux1", "mux9").says("pool", "mux9.sock: nothing listens there", "warning")


def test_control_socket_gone(pool: Broken) -> None:
    path = pool.socket("mux2")
    with pool.changed("mux2", f"mv {path} {path}.away", f"mv {path}.away {path}"):
        assert pool.doctor("mux2").says("daemon", "nothing listens there; is `lbmux mux` running?")


def test_weight_0_everywhere(pool: Broken, tmp_path: Path) -> None:
    backends = [{"dip": f"10.1.{n}.2", "weight": 0} for n in (1, 2)]
    service = {"name": "web", "vip": VIP, "protocol": "tcp", "port": 80, "backends": backends}
    path = tmp_path / "services.yaml"
    path.write_text(json.dumps({"services": [service]}))  # JSON is YAML, too
    assert pool.doctor("mux1", file=path).says("configuration", "at least one backend should have a weight above 0")
