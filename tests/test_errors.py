"""What an error says, and that it carries its data."""

import pickle
from pathlib import Path

import pytest

from lbmux.errors import (
    CaptureError,
    ConfigError,
    ControlError,
    LabError,
    LbmuxError,
    Problem,
    SetupError,
    TableError,
)

SAID = [
    (
        ConfigError(Path("a.yaml"), [Problem(3, "services[0].vip", "no"), Problem(None, "", "unreadable")]),
        "a.yaml:3: services[0].vip: no\na.yaml: unreadable",
    ),
    (SetupError("interface eth9", "there is none"), "interface eth9: there is none"),
    (SetupError("packet socket", "not allowed", "run as root"), "packet socket: not allowed (run as root)"),
    (CaptureError(Path("a.pcap"), 40, "cut"), "a.pcap: at byte 40: cut"),
    (ControlError(Path("/run/m.sock"), "refused", ["one", "two"]), "/run/m.sock: refused\none\ntwo"),
    (LabError("mux1", "gone"), "mux1: gone"),
    (LabError("", "no lab is up"), "no lab is up"),
    (TableError("backends", 20, 10), "backends: 20 entries wanted, room for 10"),
]


@pytest.mark.parametrize(("error", "text"), SAID)
def test_an_error_says_one_clear_thing(error: LbmuxError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("error", [error for error, _ in SAID])
def test_an_error_survives_the_way_between_processes(error: LbmuxError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy)) == (type(error), vars(error))
