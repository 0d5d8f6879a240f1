from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest

from lbmux.errors import ConfigError
from lbmux.steering.measurements import read_groups, read_latency

HEAD = {"groups": "prefix,users,resolver\n", "latency": "prefix,pop,rtt_ms,low_ms,high_ms,samples,time\n"}


def test_both_files(tmp_path: Path) -> None:
    (tmp_path / "g").write_text(HEAD["groups"] + "198.51.100.0/24,7,192.0.2.53\n2001:db8::/56,2.5,\n10.0.0.0/24,0,\n")
    (tmp_path / "l").write_text(HEAD["latency"] + "198.51.100.0/24,fra,10,9,12,80,1000\n10.0.0.0/24,gone,1,1,1,1,1\n")
    groups, rtt = read_groups(tmp_path / "g"), read_latency(tmp_path / "l", ["ams", "fra"])
    assert groups.prefixes == (ip_network("198.51.100.0/24"), ip_network("2001:db8::/56"))
    assert groups.users.tolist() == [7, 2.5] and groups.resolvers == ("192.0.2.53", "")
    assert rtt.rows == {ip_network("198.51.100.0/24"): 0}
    assert [array[1, 0] for array in (rtt.rtt_ms, rtt.low_ms, rtt.high_ms, rtt.samples, rtt.time)] == [
        10, 9, 12, 80, 1000
    ]  # fmt: skip
    assert np.isnan(rtt.rtt_ms[0, 0])
    assert np.isnan(rtt.recent_ms(2000, 999)[1, 0]) and rtt.recent_ms(2000, 1000)[1, 0] == 10


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("groups", "a,b\n", "f:1: should begin with the columns prefix,users,resolver, not a,b"),
        ("groups", HEAD["groups"], "f: has no group with users"),
        ("groups", HEAD["groups"] + "10.0.0.0/24,1\n", "f:2: has 2 columns, not 3"),
        ("groups", HEAD["groups"] + "10.0.0.1/24,1,\n", "f:2: prefix: 10.0.0.1/24 has host bits set"),
        ("groups", HEAD["groups"] + "10.0.0.0/24,-1,\n", "f:2: users: '-1' is not a number of 0 or more"),
        ("groups", HEAD["groups"] + "10.0.0.0/24,1,x\n", "f:2: resolver: 'x' does not appear to be"),
        ("groups", HEAD["groups"] + "10.0.0.0/24,1,\n" * 2, "f:3: prefix: 10.0.0.0/24 is listed twice"),
        ("latency", HEAD["latency"] + "10.0.0.0/24,fra,1,1,1,nan,1\n", "f:2: samples: 'nan' is not a number"),
        ("latency", HEAD["latency"] + "10.0.0.0/24,fra,x,1,1,1,1\n", "f:2: rtt_ms: 'x' is not a number"),
    ],
)
def test_a_fault_names_its_line(kind: str, text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_groups(tmp_path / "f") if kind == "groups" else read_latency(tmp_path / "f", ["fra"])
    assert f"{tmp_path}/{why}" in str(caught.value)
