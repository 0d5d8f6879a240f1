"""The picture, and that its help line has every key that does something, and no other."""

import copy
import string
from pathlib import Path

import pytest
from rich.console import Console

from lbmux.api import control_paths
from lbmux.cli.main import run
from lbmux.tools.top.screen import SEQUENCES, render
from lbmux.tools.top.view import KEYS, View
from tests.api.lines import flow_line
from tests.tools.top.test_view import reading, together, view, with_backends

LABELS = {"up": "↑", "down": "↓"}
SHOWN = {word for label in KEYS for word in label.split()}


def text(of: View) -> list[str]:
    console = Console(width=120, height=30)
    with console.capture() as captured:
        console.print(render(of))
    return captured.get().splitlines()


def changed_by(key: str) -> bool:
    """Whether a key changes something in a view that has gone into a service."""
    pool_view = view(flows=3)
    for before in ("down", "enter", "down"):
        pool_view.press(before)
    as_it_was = copy.copy(pool_view)
    as_it_was.sorted_by = dict(pool_view.sorted_by)
    pool_view.press(key)
    return pool_view != as_it_was


def test_every_byte_sequence_that_means_a_key_is_in_the_help_line() -> None:
    for typed, name in SEQUENCES.items():
        assert (typed.decode() if typed.isalpha() else LABELS.get(name, name)) in SHOWN


def test_the_help_line_has_the_keys_that_do_something_and_no_others() -> None:
    named = {typed.decode(): name for typed, name in SEQUENCES.items() if typed.isalpha()}
    typed = {letter for letter in string.printable if changed_by(named.get(letter, letter))}
    others = {LABELS.get(name, name) for name in SEQUENCES.values() if changed_by(name)}
    # The last row is selected, so Down does nothing; j is the same key.
    assert typed | others | {"↓", "j"} == SHOWN


def test_the_help_line_is_on_every_level() -> None:
    pool_view = view(flows=3)
    for key in ("down", "enter", "enter"):
        assert text(pool_view)[-1].split() == " ".join(f"{key} {what}" for key, what in KEYS.items()).split()
        pool_view.press(key)


def test_a_flow_has_a_backend_a_state_an_idle_time_and_no_rates() -> None:
    pool_view = view(flows=3)
    for key in ("down", "enter", "enter"):
        pool_view.press(key)
    lines = text(pool_view)
    assert lines[2].split() == ["client", "port", "mux", "backend", "state", "idle,", "s", "▼"]
    assert lines[3].split() == ["198.51.100.2", "2", "mux1", "h1", "trusted", "0.2"]
    assert lines[-2].startswith("flows have no counters")
    pool_view.press("backspace")
    assert text(pool_view)[-2] == ""


def test_ports_and_weights_are_whole_numbers_and_quantities_are_short() -> None:
    pool_view = view(flows=3)
    for key in ("down", "enter", "enter"):
        pool_view.press(key)
    assert pool_view.after is not None
    pool_view.after.muxes["mux1"].flows[:] = [flow_line(source_port=42_500)]
    assert text(pool_view)[3].split()[1] == "42500"
    pool_view.press("backspace")
    pool_view.after = with_backends(pool_view.after, weight=65_000, live_flows=42_500)
    assert text(pool_view)[3].split()[3:5] == ["65000", "42.5k"]


def test_drops_of_several_muxes_are_shown_by_mux() -> None:
    assert text(view())[1] == "drops/s: denied 15"
    pool_view = View()
    pool_view.take(together(reading(10.0, 0, 0, denied=100), reading(10.0, 0, 0)))
    pool_view.take(together(reading(11.0, 0, 0, denied=110), reading(11.0, 0, 0, denied=5)))
    assert text(pool_view)[1] == "drops/s: denied 15 (mux1 10, mux2 5)"


def test_without_a_mux_the_agents_socket_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(control_paths, "default_path", lambda program: tmp_path / f"{program}.sock")
    (tmp_path / "agent.sock").touch()
    assert run(["top", "--once"]) == 1
    assert "agent.sock" in capsys.readouterr().err
