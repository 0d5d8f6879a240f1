"""Figure 12 of the Ananta paper: its file and its plot, from runs that are made up."""

from itertools import islice
from pathlib import Path

from bench.isolation import CLIENTS, LOADS, Run, _flows, draw, write_csv
from lbmux.wire.header_layouts import IPV4, IPV4_BYTES, TCP
from lbmux.wire.numbers import ACK, SYN

RUNS = [Run("packet", load, 1.0 + number, 0.5) for load in LOADS for number in range(2)]


def test_each_run_is_a_line_of_the_file(tmp_path: Path) -> None:
    write_csv(tmp_path / "runs.csv", RUNS)
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert lines[:2] == ["driver,load,isolated_s,back_s", "packet,none,1.0,0.5"] and len(lines) == 1 + len(RUNS)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    draw(tmp_path / "runs.png", RUNS)
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")


def test_each_flow_of_the_base_load_begins_once() -> None:
    flags = [packet[IPV4_BYTES + TCP.at("flags")] for packet in islice(_flows("192.0.2.1"), 3 * CLIENTS)]
    assert flags == [SYN] * CLIENTS + [ACK] * 2 * CLIENTS
    sources = {packet[IPV4.at("source") :][:4] for packet in islice(_flows("192.0.2.1"), CLIENTS)}
    assert len(sources) == CLIENTS
