import json
from pathlib import Path

import pytest

from lbmux.cli.main import run
from tests.manager.running import running_manager
from tests.steering.steering_files import STEERING, write_files


def test_a_map_is_a_revision_of_the_manager_after_a_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steering = write_files(tmp_path)
    apply = ["steer", "apply", "-c", str(steering)]
    with running_manager(tmp_path / "manager") as manager:
        options = manager.options()
        assert run([*apply, "--dry-run", *options]) == 0
        assert capsys.readouterr().out.endswith("map 1 would be the pool's: 2 groups changed\n")
        assert run(["show", "maps", *options, "-j"]) == 0
        assert json.loads(capsys.readouterr().out)["maps"] == []
        assert run([*apply, "-m", "begin", *options]) == 0
        assert capsys.readouterr().out.endswith("map 1 is the pool's: 2 groups changed\n")
        steering.write_text(STEERING.replace('"2001:db8::1"], capacity: 100', '"2001:db8::1"], capacity: 70'))
        assert run([*apply, "--dry-run", *options, "-j"]) == 0
        assert (dry := json.loads(capsys.readouterr().out))["moved"] == 21 and "revision" not in dry
        assert dry["rtt_ms"] > dry["rtt_ms_before"]
        assert run([*apply, *options, "-j"]) == 0
        assert json.loads(capsys.readouterr().out)["revision"] == 2
        assert run(["show", "maps", *options]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] in (["1"], ["2"])]
        assert [(line[0], line[6]) for line in lines] == [("2", "21"), ("1", "0")] and lines[1][-1] == "begin"


def test_a_map_needs_a_manager(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["steer", "apply", "-c", str(write_files(tmp_path))]) == 2
    assert "--manager" in capsys.readouterr().err


def test_an_earlier_map_is_restored_after_a_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steering = write_files(tmp_path)
    rollback = ["steer", "rollback", "-c", str(steering)]
    with running_manager(tmp_path / "manager") as manager:
        options = manager.options()
        assert run([*rollback, *options]) == 1 and "there is no map yet" in capsys.readouterr().err
        for capacity in (100, 70):
            steering.write_text(
                STEERING.replace('"2001:db8::1"], capacity: 100', f'"2001:db8::1"], capacity: {capacity}')
            )
            assert run(["steer", "apply", "-c", str(steering), *options]) == 0
        capsys.readouterr()
        assert run([*rollback, "--dry-run", *options]) == 0
        assert capsys.readouterr().out.startswith(
            "map 3 would be the pool's, as map 1: 21 of 90 users move, mean round trip"
        )
        assert run([*rollback, "1", "-m", "too slow", *options, "-j"]) == 0
        restored = json.loads(capsys.readouterr().out)
        assert (restored["number"], restored["restores"], restored["moved"]) == (3, 1, 21)
        assert restored["rtt_ms"] < restored["rtt_ms_before"]
        assert run([*rollback, "9", *options]) == 1 and "map 9 does not exist" in capsys.readouterr().err
        steering.write_text(STEERING.replace("capacity: 100}", "capacity: 100, healthy: false}", 1))
        assert run([*rollback, "1", *options]) == 1 and "the map uses fra" in capsys.readouterr().err
