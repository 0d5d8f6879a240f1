"""What agents report, in the latency file."""

from pathlib import Path

import pytest

from lbmux.api.answers import RoundTripLine
from lbmux.errors import ConfigError
from lbmux.steering.latency_file import update

HEAD = "prefix,pop,rtt_ms,low_ms,high_ms,samples,time\n"
OLD = "10.0.0.0/24,fra,9,8,10,60,500\n10.0.1.0/24,fra,7,6,8,60,500\n10.0.0.0/24,ams,30,29,31,60,500\n"


def test_a_report_replaces_the_same_prefix_at_the_same_pop_only(tmp_path: Path) -> None:
    path = tmp_path / "latency.csv"
    path.write_text(HEAD + OLD)
    update(path, "fra", [RoundTripLine("10.0.0.0/24", 12.0, 11.0, 13.0, 50, 900.4)])
    kept = "".join(OLD.splitlines(keepends=True)[1:])
    assert path.read_text() == HEAD + kept + "10.0.0.0/24,fra,12.000,11.000,13.000,50,900\n"


def test_several_agents_count_by_their_connections(tmp_path: Path) -> None:
    path = tmp_path / "latency.csv"
    lines = [RoundTripLine("10.0.0.0/24", *times, 900) for times in ((10.0, 8.0, 12.0, 100), (40.0, 32.0, 48.0, 50))]
    update(path, "fra", lines)
    assert path.read_text() == HEAD + "10.0.0.0/24,fra,20.000,16.000,24.000,150,900\n"


def test_another_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text("prefix,users,resolver\n")
    with pytest.raises(ConfigError, match="should begin with the columns prefix,pop"):
        update(path, "fra", [])
    assert path.read_text() == "prefix,users,resolver\n"
