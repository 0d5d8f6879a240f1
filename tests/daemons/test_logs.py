"""What running daemons log as JSON."""

import json
import signal
from datetime import datetime

import pytest

from lbmux.lab.lab import Lab
from tests.daemons.running_daemons import Daemon, configuration, service

READY = {"mux": '"event": "mux %s on %s', "agent": '"event": "agent on %s'}


@pytest.mark.root
@pytest.mark.parametrize(("node", "program"), [("mux1", "mux"), ("host1", "agent")])
def test_every_line_is_an_event(lab: Lab, node: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBMUX_LOG_FORMAT", "json")
    lab.write_config(configuration(service("web", 80, [{"name": "h1", "dip": "10.1.1.2"}])))
    daemon = Daemon(lab, node, program)
    try:
        daemon.wait_for(READY[program], 30.0)
        lab.write_config({"services": 7})
        daemon.tell(signal.SIGHUP)
        daemon.wait_for('"level": "error"', 20.0)
        assert daemon.end() == 0
    finally:
        daemon.process.kill()
        daemon.process.wait()
    events = [json.loads(line) for line in daemon.log.splitlines()]
    assert all(datetime.fromisoformat(event["time"]).utcoffset() is not None for event in events)
    assert {event["level"] for event in events} >= {"info", "error"}
    assert any("services" in event["message"] for event in events if event["level"] == "error")
