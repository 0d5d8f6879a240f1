"""What `lbmux doctor` prints, where it looks, and that it finds nothing where nothing is broken."""

import json

import pytest

from tests.lab.broken.broken import Broken
from tests.lbmux_command import lbmux

pytestmark = pytest.mark.root


def test_a_sound_lab_has_no_fault(either: Broken) -> None:
    for node in ("mux1", "host1", "host3", "router"):
        report = either.doctor(node)
        assert report.faults == [], node
    assert either.doctor("mux1", "mux2").faults == []


def test_from_outside_the_doctor_goes_to_where_the_daemon_is(pool: Broken) -> None:
    ran = lbmux("doctor", "--control", str(pool.socket("mux1")), "-j")
    findings = json.loads(ran.stdout)["findings"]
    assert (ran.returncode, [one for one in findings if one["state"] == "fault"]) == (0, [])
    assert "the checks below are of that one" in findings[0]["seen"]
    assert all("the checks below are of that one" not in one.seen for one in pool.doctor("mux1").findings)


def test_the_command_prints_a_table_or_json_and_exits_by_what_it_found(pool: Broken) -> None:
    asked = ("doctor", "--control", str(pool.socket("host1")))
    fine = pool.command("host1", *asked, "-j")
    assert (fine.returncode, json.loads(fine.stdout)["role"]) == (0, "agent")
    with pool.changed("host1", "ip addr add 192.0.2.1/32 dev lo", "ip addr del 192.0.2.1/32 dev lo"):
        broken = pool.command("host1", *asked, "--quiet")
    assert broken.returncode == 1
    assert "arp_ignore is 0" in broken.stdout and "hint: " in broken.stdout
    assert "\nok " not in broken.stdout
