"""A mux whose file differs from its running configuration, and a mux with overrides."""

import asyncio
import json
from pathlib import Path

import pytest

from lbmux.backends.override_commands import Change, add, set_admin_state, set_weight
from lbmux.config.loader import load
from lbmux.daemons.drivers import Driver
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.status_handlers import StatusHandlers
from lbmux.tools.doctor import daemon_checks
from lbmux.tools.doctor.finding import Finding
from tests.api.answering import answering
from tests.linux.inside import CONFIG, Inside
from tests.tools.doctor.node_states import node


class Mux:
    """Its tables and its file, and overrides as `lbmux weight` and the other commands give them."""

    def __init__(self, directory: Path) -> None:
        self.file, self._socket = directory / "lbmux.yaml", directory / "mux.sock"
        self.file.write_text(json.dumps(CONFIG))  # JSON is YAML, too
        self._inside = Inside()
        self._reloader = Reloader(self.file, self._inside.mux, load(self.file))

    def override(self, change: Change) -> None:
        asyncio.run(self._reloader.change(change))

    def finding(self) -> Finding:
        inside = self._inside
        showing = StatusHandlers(
            lambda: inside.snapshot, Driver("mux", "eth0", inside.tables, 0, "packet"), self.file, {}
        )
        with answering(self._socket, showing.handlers() | self._reloader.handlers()):
            known = node("mux", self._socket, runtime={"config": str(self.file)}, not_serving=[])
            (finding,) = daemon_checks.in_force(known)
        return finding


@pytest.fixture
def mux(tmp_path: Path) -> Mux:
    return Mux(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        set_weight(7, "h1", "web", 0.0),
        add("web", {"name": "h3", "dip": "10.1.3.2"}, 0.0),
        set_admin_state("remove", "h2", "web", 0.0),
        set_admin_state("drain", "h2", "web", 0.0),
    ],
    ids=["weight", "add", "remove", "drain"],
)
def test_an_override_is_not_a_reason_to_reload(mux: Mux, change: Change) -> None:
    mux.override(change)
    assert mux.finding().state == "ok"


def test_a_file_that_was_changed_is(mux: Mux) -> None:
    mux.override(set_weight(7, "h1", "web", 0.0))
    mux.file.write_text(mux.file.read_text().replace('"weight": 2', '"weight": 3').replace('"port": 53', '"port": 54'))
    finding = mux.finding()
    assert finding.state == "warning" and finding.hint.startswith("run `lbmux reload --control ")
    assert finding.seen.endswith("service web: backend h2 changed; service dns: port changed; "
                                 "service dns: backend h1 changed")  # fmt: skip
