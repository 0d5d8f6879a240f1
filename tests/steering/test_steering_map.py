from ipaddress import ip_network
from pathlib import Path

import pytest

from lbmux.errors import ConfigError
from lbmux.steering.steering_map import SteeringMap, from_json, read, write

MAP = SteeringMap(
    "www.example.net", 30, {"fra": ("192.0.2.1", "2001:db8::1")},
    {ip_network("198.51.100.0/24"): {"fra": 0.6, "ams": 0.4}}, "fra", frozenset([ip_network("198.51.100.0/24")]),
)  # fmt: skip


def test_a_map_can_be_read_back(tmp_path: Path) -> None:
    write(tmp_path / "map", MAP)
    stored = read(tmp_path / "map")
    assert stored.to_json() == MAP.to_json() and stored.groups == MAP.groups


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', MAP.to_json().replace("198.51.100.0/24", "x")])
def test_another_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="f: is not a map of `lbmux steer`"):
        from_json(text, Path("f"))
