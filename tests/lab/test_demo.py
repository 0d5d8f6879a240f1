"""The demo, as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lbmux.lab import namespaces
from lbmux.lab.lab import Lab
from lbmux.lab.topology import ananta

pytestmark = pytest.mark.root

LIMIT_S = 55
STEPS = (
    "download of 50 MB", "replies bypass the muxes", "upload of 50 MB", "300 new web connections: h1",
    "download of 50 MB over IPv6", "upload of 50 MB over IPv6", "300 new web6 connections: h1",
    "50 connections, before", "mux1 is killed under 50 connections", "50 connections, afterwards",
    "h3 is added under 50 connections",
    "300 new echo connections: h3",
)  # fmt: skip


def command(name: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "lbmux.cli.main", "lab", "demo", "--name", name, *options]


def test_every_row_holds_and_nothing_stays_behind() -> None:
    lab = Lab(ananta(), f"d{os.getpid()}")
    ran = subprocess.run(command(lab.name, "--json"), capture_output=True, text=True, timeout=LIMIT_S)
    result = json.loads(ran.stdout)
    print(f"demo: {result['seconds']} s")
    assert [row for row in result["rows"] if not row["holds"]] == []
    assert ran.returncode == 0 and result["holds"]
    assert [row["what"] for row in result["rows"] if row["what"] in STEPS] == list(STEPS)
    assert not namespaces.exists(lab.namespace("client")) and not lab.directory.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_takes_the_lab_down(number: signal.Signals) -> None:
    lab = Lab(ananta(), f"i{os.getpid()}")
    process = subprocess.Popen(command(lab.name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + LIMIT_S
    while not Lab(ananta(), lab.name).processes and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(LIMIT_S) == 130
    assert not namespaces.exists(lab.namespace("client")) and not lab.directory.exists()
