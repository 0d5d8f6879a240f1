"""What the doctor takes the machine for, and what it does where nothing answers."""

from pathlib import Path

import pytest

from lbmux.tools.doctor import situation
from lbmux.tools.doctor.examine import CHECKS, examine
from lbmux.tools.doctor.situation import ROLES, Situation


def test_without_a_daemon_the_machine_is_a_router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(situation, "default_path", lambda program: tmp_path / f"{program}.sock")
    assert Situation.here(None, None, None, ()).role == "router"
    (tmp_path / "agent.sock").touch()
    assert Situation.here(None, None, None, ()).role == "agent"
    (tmp_path / "mux.sock").touch()
    found = Situation.here(None, None, None, ())
    assert (found.role, found.control) == ("mux", tmp_path / "mux.sock")


def test_a_mux_that_is_not_there_is_a_fault_and_no_check_fails_for_it(tmp_path: Path) -> None:
    found = list(examine(Situation("mux", tmp_path / "mux.sock")))
    faults = [finding for finding in found if finding.check == "daemon"]
    assert [finding.state for finding in faults] == ["fault"]
    assert "nothing listens there" in faults[0].seen and "lbmux mux" in faults[0].mend
    assert not [finding for finding in found if "cannot be looked at" in finding.seen]


def test_a_broken_file_is_told_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text("services:\n- name: web\n  vip: nonsense\n")
    every = examine(Situation("host", tmp_path / "x", path))
    found = [finding for finding in every if finding.check == "configuration"]
    assert {finding.state for finding in found} == {"fault"}
    assert any(finding.seen.startswith(f"{path}:3: services[0].vip: ") for finding in found)


def test_every_role_has_checks() -> None:
    assert set(CHECKS) == set(ROLES)
