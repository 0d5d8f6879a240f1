"""`lbmux config`: what it prints, and its exit codes."""

import io
import json
from pathlib import Path

import pytest

from lbmux.cli.main import run

PCAPS = Path(__file__).parents[3] / "pcaps"
CAPTURE, SEVERAL = (str(PCAPS / name) for name in ("tcp.pcap", "sll.pcap"))
GOOD = """\
services:
  - name: web
    vip: 192.0.2.1
    protocol: tcp
    port: 80
    backends: [{dip: 10.1.1.2}, {dip: 10.1.1.3}]
"""


def test_a_good_file_is_0_and_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lbmux.yaml"
    file.write_text(GOOD)
    assert run(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: valid: 1 service, 2 backends\n"


def test_a_bad_file_is_3_and_a_line_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lbmux.yaml"
    file.write_text(GOOD.replace("192.0.2.1", "web.example").replace("port: 80", "port: 0"))
    assert run(["config", "check", str(file)]) == 3
    assert capsys.readouterr() == (
        f"{file}:3: services[0].vip: is not an IPv4 or IPv6 address\n"
        f"{file}:5: services[0].port: should be 1 to 65535, or `any`\n",
        "",
    )


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_standard_input_is_checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed(monkeypatch, GOOD)
    assert run(["config", "check", "-"]) == 0
    assert capsys.readouterr().out == "-: valid: 1 service, 2 backends\n"
    typed(monkeypatch, GOOD.replace("port: 80", "port: 0"))
    assert run(["config", "check", "-"]) == 3
    assert capsys.readouterr().out == "-:5: services[0].port: should be 1 to 65535, or `any`\n"


def test_standard_input_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.yaml").write_text(GOOD)
    typed(monkeypatch, GOOD)
    assert run(["config", "diff", "-", "-c", str(tmp_path / "old.yaml")]) == 0
    assert capsys.readouterr().out == "no differences\n"


def test_a_file_that_does_not_exist_is_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check", str(tmp_path / "none.yaml")]) == 3
    assert capsys.readouterr().out == f"{tmp_path}/none.yaml: cannot be read: No such file or directory\n"


def test_a_capture_gives_a_configuration_that_replay_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "made.yaml"
    assert run(["config", "from-capture", CAPTURE, "--backends", "2"]) == 0
    file.write_text(capsys.readouterr().out)
    assert run(["config", "check", str(file)]) == 0
    assert run(["replay", CAPTURE, "-c", str(file), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert answer["verdicts"]["forwarded"]["packets"] == answer["packets"]
    assert {name.rpartition("/")[2] for name in answer["backends"]} == {"h1", "h2"}


def test_services_that_are_left_out_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "from-capture", SEVERAL, "--services", "1"]) == 0
    out, err = capsys.readouterr()
    assert (out.count("- name: "), out.count("dip: ")) == (1, 4)
    assert "1 more service left out: see --services" in err


def test_a_capture_without_requests(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "from-capture", str(PCAPS / "empty.pcap")]) == 1
    assert "no TCP SYN and no UDP request to an address that can be a VIP in 0 packets" in capsys.readouterr().err


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["services"]


def test_rules_of_ipvs_are_imported_with_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "-A -t 192.0.2.1:80 -s wlc\n-a -t 192.0.2.1:80 -r 10.0.0.1:80 -g -w 1\n")
    assert run(["config", "import", "-"]) == 0
    out, err = capsys.readouterr()
    assert "#   -:1: add-service.scheduler: wlc: lbmux spreads" in out and "tunnel: direct" in out
    assert err == "-: 1 service; 1 remark at the head of the result\n"


def test_a_file_that_cannot_be_imported_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "import", str(tmp_path / "gone")]) == 1
    assert "gone: cannot be read" in capsys.readouterr().err
    assert run(["config", "import", "/dev/zero"]) == 1
    assert "/dev/zero: cannot be read: it is not a regular file" in capsys.readouterr().err
