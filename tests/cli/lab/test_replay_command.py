"""`lbmux replay`: its options, what it prints, its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lbmux.cli.main import group, run
from lbmux.datapath.tables import LOOKUPS

PCAPS = Path(__file__).parents[3] / "pcaps"
CONFIG = ("-c", str(PCAPS / "services.yaml"))
TCP, CUT, FOREIGN = (str(PCAPS / name) for name in ("tcp.pcap", "cut.pcap", "foreign.pcapng"))


@pytest.mark.parametrize(
    "arguments",
    [
        [TCP],
        [TCP, *CONFIG, "--pps", "5"],
        [TCP, "--to", "lo", "-w", "out"],
        [TCP, *CONFIG, "--loop", "0"],
        ["-", *CONFIG, "--loop", "2"],
        [TCP, *CONFIG, "-w", TCP],
        [TCP, *CONFIG, "--address", "2001:db8::1::"],
        [TCP, *CONFIG, "--source-mac", "02:00"],
        [TCP, *CONFIG, "--at", "5=new.yaml"],
        [TCP, *CONFIG, "--muxes", "0"],
        [TCP, *CONFIG, "--lose", "mux1@1s"],
        [TCP, *CONFIG, "--muxes", "2", "--lose", "mux3@1s"],
        [TCP, *CONFIG, "--muxes", "3", "--lose", "mux1@1s", "--lose", "mux1@2s"],
        [TCP, *CONFIG, "--muxes", "2", "--lose", "web1@1s"],
        [TCP, *CONFIG, "--map", "192.0.2.7"],
        [TCP, *CONFIG, "--map", "192.0.2.7=192.0.2.1", "--map", "192.0.2.7=192.0.2.2"],
        [TCP, *CONFIG, "--flows-csv", TCP],
        [TCP, *CONFIG, "--flows-csv", "out", "-w", "./out"],
        [TCP, "--to", "lo", "--muxes", "2"],
    ],
)
def test_wrong_usage(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LBMUX_CONFIG", raising=False)
    before = Path(TCP).read_bytes()
    assert run(["replay", *arguments]) == 2
    assert Path(TCP).read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (
            ["/nope.pcap", *CONFIG],
            "lbmux: /nope.pcap: No such file or directory (name an existing file that this user may read)",
        ),
        ([TCP, "-c", "/nope.yaml"], "lbmux: /nope.yaml: cannot be read: No such file or directory"),
        (
            [TCP, *CONFIG, "-w", "/nope/out.pcap"],
            "lbmux: /nope/out.pcap: No such file or directory (name another file to write)",
        ),
        ([TCP, "--to", "nope0"], "lbmux: interface nope0: not found (`ip link` lists them)"),
        (
            [*CONFIG, CONFIG[1]],
            f"lbmux: {CONFIG[1]}: at byte 0: neither pcap nor pcapng, plain or compressed by gzip or zstd",
        ),
    ],
)
def test_an_impossible_replay_is_a_one_line_error(
    arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", *arguments]) == 1
    assert capsys.readouterr().err == answer + "\n"


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", TCP, *CONFIG]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("verdict", "forwarded", "backend", "web/h1", "names/h2"))
    assert f"{TCP}: 18 packets in " in out and "packets per second" in out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", TCP, *CONFIG, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["version"] == 1
    assert (answer["capture"], answer["packets"], answer["written"], answer["damage"]) == (TCP, 18, None, None)
    assert answer["verdicts"] == {"forwarded": {"packets": 18, "bytes": answer["bytes"]}}
    assert sum(count["packets"] for count in answer["backends"].values()) == 18
    assert answer["packets_per_second"] > 0


def test_packets_of_foreign_link_types_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", FOREIGN, *CONFIG]) == 0
    out = capsys.readouterr().out.replace("\n", "")
    assert "4 packets in " in out
    assert "; 3 skipped (link type 220 is not Ethernet, raw IP, Linux cooked, loopback or PPP)" in out
    assert run(["replay", FOREIGN, *CONFIG, "--json", "--loop", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == {"220": 6}


def test_unknown_mux_is_named_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", TCP, *CONFIG, "--muxes", "2", "--lose", "mux3@1s"]) == 2
    assert "--lose: unknown mux mux3: --muxes 2 makes mux1, mux2" in capsys.readouterr().err


def test_muxes_are_completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"COMP_WORDS": "lbmux replay --muxes 3 --lose m", "COMP_CWORD": "5", "_LBMUX_COMPLETE": "bash_complete"}
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        group.main([], prog_name="lbmux", complete_var="_LBMUX_COMPLETE")
    assert capsys.readouterr().out == "plain,mux1@\nplain,mux2@\nplain,mux3@\n"


def test_lookups_by_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", TCP, *CONFIG]) == 0
    out = capsys.readouterr().out
    assert "look-up" in out and "limited" not in out  # only those that occurred
    assert run(["replay", TCP, *CONFIG, "--json"]) == 0
    assert {*LOOKUPS} == {*json.loads(capsys.readouterr().out)["lookups"]}


def test_changes_flows_and_muxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, flows = tmp_path / "new.yaml", tmp_path / "flows.csv"
    new.write_text(Path(CONFIG[1]).read_text().replace("10.1.1.2, port: 8080}", "10.1.1.2, port: 8081}"))
    at = ["--at", f"1ms={new}", "--muxes", "2", "--lose", "mux1@2ms", "--flows-csv", str(flows)]
    assert run(["replay", TCP, *CONFIG, *at]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("mux2", "change", "continued", "draining", "mux1 lost", "0.001 s"))
    assert " to VIPs: " in out
    assert run(["replay", TCP, *CONFIG, *at, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(each["at_s"], each["change"]) for each in answer["changes"]] == [(0.001, str(new)), (0.002, "mux1 lost")]
    assert {*answer["changes"][0]["effect"]} == {"continued", "broken", "lost", "draining"}
    assert sum(mux["packets"] for mux in answer["muxes"].values()) == answer["packets"] == 18
    rows = flows.read_text().splitlines()
    assert rows[0].startswith("protocol,source,source_port,vip,") and len(rows) == 1 + answer["flows"]["all"]


def test_flows_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", TCP, *CONFIG, "--flows-csv", "-"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("protocol,source,") and "verdict" not in out and "verdict" in err


def test_change_after_the_end_is_named_after_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", TCP, *CONFIG, "--at", f"1h={CONFIG[1]}"]) == 1
    out, err = capsys.readouterr()
    assert f"{TCP}: 18 packets in " in out
    assert err.startswith(f"lbmux: {CONFIG[1]} at 3600 s: the capture ends at ")


def test_invalid_change_is_found_before_the_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new.yaml"
    new.write_text(Path(CONFIG[1]).read_text().replace("port: 53", "port: 0"))
    assert run(["replay", TCP, *CONFIG, "--at", f"1s={new}"]) == 1
    assert capsys.readouterr() == (
        "",
        f"lbmux: {new}:15: services[1].port: should be 1 to 65535, or `any`\n"
        f"lbmux: {new}: cannot come into force at 1 s of the capture\n",
    )


def test_destination_is_mapped_to_a_vip(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", TCP, *CONFIG, "--map", "192.0.2.1=192.0.2.9"]) == 0
    out = capsys.readouterr().out
    assert "not_vip" in out and "packets with another destination" in out.replace("\n", " ")


def test_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", TCP, *CONFIG, "--json", "--loop", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["packets"] == 54


def test_damage_is_named_after_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", CUT, *CONFIG]) == 1
    out, err = capsys.readouterr()
    assert f"{CUT}: 17 packets in " in out
    assert err == f"lbmux: {CUT}: at byte 1319: truncated\n"


def test_damage_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", CUT, *CONFIG, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["damage"] == {"offset": 1319, "reason": "truncated"}


def test_outer_addresses_as_given(tmp_path: Path) -> None:
    macs = ["--source-mac", "02:00:00:00:00:0a", "--destination-mac", "02:00:00:00:00:0b"]
    assert run(["replay", TCP, *CONFIG, "--address", "10.9.8.7", *macs, "-w", str(tmp_path / "out")]) == 0
    frame = (tmp_path / "out").read_bytes()[24 + 16 :]
    assert frame[:12].hex() == "02000000000b02000000000a"
    assert frame[26:30] == bytes([10, 9, 8, 7])


def test_through_a_pipe_without_a_bar_or_a_word_on_standard_output(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lbmux.cli.main", "replay", "-", *CONFIG, "-w", "-"]
    ran = subprocess.run(command, input=Path(TCP).read_bytes(), capture_output=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, (PCAPS / "tcp.golden.pcap").read_bytes())
    assert b"-: 18 packets in " in ran.stderr and b"\r" not in ran.stderr
