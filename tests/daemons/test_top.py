"""`lbmux top` and a running mux."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP

from lbmux.cli.main import run
from lbmux.lab.lab import Lab
from lbmux.tools.top.readings import Reading, recorded
from tests.daemons.running_daemons import configuration, running, send, service
from tests.tools.top.terminal import TOP, Terminal


@pytest.mark.root
def test_once_on_a_running_mux(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab.write_config(configuration(service("web", 80, [{"name": "h1", "dip": "10.1.1.2"}])))
    record = tmp_path / "r.jsonl"
    with running(lab, "mux1", "mux") as mux:
        options = ["--control", str(mux.control), "--once", "-j", "--interval", "0.1", "-w", str(record)]
        assert run(["top", *options]) == 0
        asked = Reading.of([mux.control, tmp_path / "gone.sock"], "service web and backend h1")
    document = json.loads(capsys.readouterr().out)
    assert [(row["service"], row["up"], row["packets_s"]) for row in document["services"]] == [("web", "1/1", 0)]
    assert len(list(recorded(record))) == 2
    (counts,) = asked.muxes.values()
    assert counts.flows == [] and [line.backend for line in counts.backends] == ["h1"]
    assert list(asked.muted) == ["gone"] and "is the daemon running?" in asked.muted["gone"]


def test_a_missing_daemon_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["top", "--control", str(tmp_path / "none.sock"), "--once"]) == 1
    assert "is the daemon running?" in capsys.readouterr().err


@contextlib.contextmanager
def traffic(lab: Lab) -> Iterator[None]:
    """Some hundred packets per second, of three flows of one client."""
    ends = IP(src="198.51.100.2", dst="192.0.2.1")
    packets = [bytes(ends / TCP(sport=port, dport=80, flags="A")) for port in (4001, 4002, 4003)]
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(0.01):
            send(lab, "client", *packets)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.root
def test_keys_go_through_a_running_mux_s_services_backends_and_flows(lab: Lab) -> None:
    backend = {"name": "h1", "dip": "10.1.1.2"}
    idle = service("idle", 81, [backend | {"name": "alone", "weight": 3}])
    lab.write_config(configuration(service("web", 80, [backend]), idle))
    with running(lab, "mux1", "mux") as mux, traffic(lab):
        terminal = Terminal([*TOP, "--control", str(mux.control), "--interval", "0.2"])
        try:
            terminal.shows("services", "192.0.2.1 tcp/80", "192.0.2.1 tcp/81", "packets/s ▼", "j k choose")
            row = terminal.matches(r"web +192\.0\.2\.1 tcp/80 +1/1 +3 +(\d+)[.\d]* ")
            assert 30 < int(row[1]) < 1000
            terminal.press("r")
            terminal.shows("packets/s ▲")
            terminal.press("s")
            terminal.shows("bit/s ▲")
            terminal.press("r\r")  # sorted by bits now, with the first row selected
            terminal.shows("services › web", "10.1.1.2", "h1")
            terminal.press("\r")
            terminal.shows("web › h1", "198.51.100.2", "4001", "4002", "4003", "trusted", "flows have no counters")
            terminal.press("p")
            terminal.shows("PAUSED")
            terminal.press("p\x7f\x7fj\r")
            terminal.shows("services › idle", "alone")
            terminal.press("\x7f")
            terminal.shows("192.0.2.1 tcp/80")
            mux.end()
            terminal.shows("no answer: mux1-test")
            terminal.press("q")
            assert terminal.process.wait(20) == 0
        finally:
            terminal.close()
