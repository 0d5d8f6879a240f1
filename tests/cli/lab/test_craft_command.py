"""`lbmux craft`: captures that replay reads, hexadecimal, headers, and its exit codes."""

import json
from pathlib import Path

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from lbmux.cli.main import run

CONFIG = ("-c", str(Path(__file__).parents[3] / "pcaps" / "services.yaml"))
PACKETS = 'IP(dst="192.0.2.1")/TCP(dport=80,sport=(1000,1009))'


def test_replay_reads_the_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pcap"
    assert run(["craft", PACKETS, 'IP(dst="203.0.113.1")/UDP()', "-w", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 11 packets\n"
    assert run(["replay", *CONFIG, "--json", str(path)]) == 0
    verdicts = json.loads(capsys.readouterr().out)["verdicts"]
    assert verdicts["forwarded"]["packets"] == 10 and sum(v["packets"] for v in verdicts.values()) == 11


def test_timestamps_follow_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    assert run(["craft", PACKETS, "-n", "5", "--pps", "2", "-w", str(path)]) == 0
    assert [float(packet.time) for packet in rdpcap(str(path))] == [0, 0.5, 1, 1.5, 2]


def test_without_a_file_each_frame_is_a_line_of_hexadecimal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["craft", PACKETS, "--count", "12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12 and lines[0] == lines[10]
    assert Ether(bytes.fromhex(lines[3]))[TCP].sport == 1003


def test_verbose_prints_headers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["craft", "-v", "-n", "1", PACKETS]) == 0
    first, *headers = capsys.readouterr().out.splitlines()
    assert first == "1: 54 bytes" and [line.split()[0] for line in headers] == ["Ether", "IP", "TCP"]


def test_explain_takes_a_packet_of_the_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pcap"
    run(["craft", PACKETS, "-w", str(path)])
    capsys.readouterr()
    assert run(["explain", *CONFIG, "--json", str(path), "--packet", "10"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["packet"]["source_port"] == 1009 and answer["service"] == "web" and answer["verdict"] == "forwarded"
    assert [line.split()[0] for line in answer["layers"]] == ["Ether", "IP", "TCP"]
    assert run(["explain", *CONFIG, str(path), "--packet", "11"]) == 1
    assert capsys.readouterr().err.endswith("ends after 10 packets: there is no packet 11\n")
    assert run(["explain", *CONFIG, str(path), "--packet", "1", "--syn"]) == 2


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("IP()/os", "lbmux: 'IP()/os': 'os' is not allowed: use layers with named fields, / and literals only\n"),
        ("IP()/UDP(dport=[])", "lbmux: 'IP()/UDP(dport=[])': stands for no packet: a field has an empty list\n"),
    ],
)
def test_a_refused_expression_leaves_no_file(
    expression: str, answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["craft", expression, "-w", str(tmp_path / "x.pcap")]) == 1
    assert capsys.readouterr().err == answer
    assert not (tmp_path / "x.pcap").exists()


def test_a_file_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["craft", PACKETS, "-w", "/nope/x.pcap"]) == 1
    assert capsys.readouterr().err == "lbmux: /nope/x.pcap: No such file or directory (name another file to write)\n"


def test_wrong_usage() -> None:
    assert run(["craft"]) == 2
    assert run(["craft", PACKETS, "-v", "-w", "x.pcap"]) == 2
    assert run(["craft", PACKETS, "--count", "0"]) == 2
