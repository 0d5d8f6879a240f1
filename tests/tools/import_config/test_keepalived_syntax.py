from pathlib import Path

import pytest

from lbmux.errors import ConfigError
from lbmux.tools.import_config.entries import Entry
from lbmux.tools.import_config.keepalived_syntax import parse


def test_words_blocks_quotes_and_comments() -> None:
    text = "a 1 \"two words\" ! no\nb c { # no\n  d\n  e\n  {\n    f 'g h'\n  }\n}\n"
    assert parse(text, Path("f")) == (
        Entry(1, "a", ("1", "two words")),
        Entry(2, "b", ("c",), (Entry(3, "d"), Entry(4, "e", (), (Entry(6, "f", ("g h",)),)))),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [("a {\nb", "f:1: this { is never closed"), ("a\n}", "f:2: unexpected }"), ("{", "f:1: unexpected {")],
)
def test_braces_that_do_not_match(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse(text, Path("f"))
