from pathlib import Path

import pytest

from lbmux.errors import ConfigError
from lbmux.steering.inputs import load


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "steering.yaml:1: is empty"),
        ("name: a.b\nttl: 5\n", "steering.yaml:2: ttl: is not a known field: did you mean `ttl_s`?"),
        (
            "pops:\n  - {name: fra, addresses: [x], capacity: 1}\n",
            "pops[0].addresses[0]: is not an IPv4 or IPv6 address",
        ),
        ("[", "steering.yaml:2: while parsing"),
    ],
)
def test_a_fault_names_line_and_field(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "steering.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "steering.yaml")
    assert why in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "gone")
