from pathlib import Path

import pytest

from lbmux.errors import ConfigError
from lbmux.tools.import_config.entries import Entry
from lbmux.tools.import_config.text_protobuf import parse


def test_messages_scalars_lists_and_comments() -> None:
    text = "a: <b: 1.5 c: \"x\\n\" 'y'>  # why\nd { e: TRUE; f: [1, 2] }\ng: [<h: 1>]"
    assert parse(text, Path("f")) == (
        Entry(1, "a", block=(Entry(1, "b", ("1.5",)), Entry(1, "c", ("x\ny",)))),
        Entry(2, "d", block=(Entry(2, "e", ("TRUE",)), Entry(2, "f", ("1",)), Entry(2, "f", ("2",)))),
        Entry(3, "g", block=(Entry(3, "h", ("1",)),)),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: <\nb: 1", "f:2: the end of the file: expected a key or >"),
        ("a: <b: 1}", "f:1: }: expected a key or >"),
        ("\na 1", "f:2: 1: expected : or a block"),
        ("a: :", "f:1: :: expected a value"),
        ("a: $", r"f:1: unexpected character '\$'"),
        ('a: "x', "f:1: unexpected character"),
    ],
)
def test_a_fault_names_its_line(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse(text, Path("f"))
