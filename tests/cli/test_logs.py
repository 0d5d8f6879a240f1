"""Logs of both forms."""

import json
import logging
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lbmux.cli.logs import Json, Text
from lbmux.cli.main import run
from tests.lbmux_command import beside, lbmux

BGP_PEER = ("--bgp-peer", "192.0.2.9:65000")


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("lbmux.daemons.mux_daemon", logging.WARNING, "mux.py", 1, message, args, None)


def test_text_is_one_line_an_event() -> None:
    assert Text().format(record("not usable:\n%s: no", "a.yaml")) == "lbmux: not usable:; a.yaml: no"


def test_json_has_the_message_and_what_it_is_made_of() -> None:
    line = json.loads(Json().format(record("next hop of %s is %d\n", "10.1.1.2", 7)))
    at = datetime.fromisoformat(line.pop("time"))
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60
    assert line == {
        "level": "warning", "logger": "lbmux.daemons.mux_daemon", "message": "next hop of 10.1.1.2 is 7\n",
        "event": "next hop of %s is %d\n", "fields": ["10.1.1.2", 7],
    }  # fmt: skip


def test_a_command_that_logs_json(tmp_path: Path) -> None:
    """`lbmux web` needs no root, and says where it is."""
    with beside("--log-format", "json", "web", "--port", "0", "--control", str(tmp_path / "none.sock")) as web:
        web.wait_for("\n")
        line = json.loads(web.errors.splitlines()[0])
        web.process.send_signal(signal.SIGTERM)
    assert line["level"] == "info" and line["logger"].startswith("lbmux.")


def test_a_variable_selects_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LBMUX_LOG_FORMAT", "json")
    assert run(["reload", "--control", str(tmp_path / "none.sock")]) == 1
    assert json.loads(capsys.readouterr().err)["event"] == "exiting: %s"


@pytest.mark.parametrize("program", ["mux", "agent", "edge"])
def test_why_a_daemon_ends_is_an_event_too(program: str, tmp_path: Path) -> None:
    options = ["-i", "no-such", "-c", str(tmp_path / "none.yaml")]
    ran = lbmux("--log-format", "json", program, *options, *(BGP_PEER if program == "edge" else ()))
    *_, last = map(json.loads, ran.stderr.splitlines())
    assert (ran.returncode, last["level"], last["event"]) == (1, "error", "exiting: %s")
    assert "none.yaml" in last["message"]
