"""`lbmux steer`: from files to a map, a summary and an explanation."""

import json
from pathlib import Path

import pytest

from lbmux.cli.main import run
from tests.steering.steering_files import STEERING, write_files


@pytest.fixture
def steering(tmp_path: Path) -> str:
    return str(write_files(tmp_path))


def test_a_dry_run_prints_a_summary(steering: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["steer", "-c", steering]) == 0
    out = capsys.readouterr().out
    assert out.startswith("90 users in 2 groups (1 estimated); mean round trip ")
    assert [line.split()[:2] for line in out.splitlines()[4:6]] == [["fra", "90"], ["ams", "0"]]


def test_a_map_is_written_and_then_present(steering: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = str(tmp_path / "map.json")
    assert run(["steer", "-c", steering, "--present", where, "-o", where]) == 0
    text = STEERING.replace('192.0.2.1, "2001:db8::1"], capacity: 100', "192.0.2.1], capacity: 100, healthy: false")
    Path(steering).write_text(text)
    capsys.readouterr()
    assert run(["steer", "-c", steering, "--present", where, "-j"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["moved"], answer["moved_from_dead"], answer["map"]["default"]) == (90, 90, "ams")


def test_explain_shows_samples_age_and_interval(steering: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["steer", "explain", "198.51.100.7", "-c", steering]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "198.51.100.0/24: 60 users; latencies: measured"
    assert lines[4].split() == ["fra", "100%", "10.0", "ms", "9.0", "to", "12.0", "80", "60", "s", "-", "up"]
    assert run(["steer", "-c", steering, "explain", "203.0.113.0/24"]) == 0
    assert "latencies: estimated, from default" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["steer", "steer explain x", "steer explain 10.0.0.0/8"])
def test_usage(words: str) -> None:
    assert run(words.split()) == 2


def test_a_group_that_is_not_known(steering: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["steer", "explain", "10.0.0.0/8", "-c", steering]) == 1
    assert "its clients go to fra, the default" in capsys.readouterr().err
