"""Each suppressed rule has its reason on the same line."""

import re

from tests.source_tree import ROOT, files

SILENCED = re.compile(r"#\s*noqa\b(?!: [A-Z0-9, ]+ -- \S)")


def test_a_silenced_rule_is_named_and_has_a_reason() -> None:
    paths = [path for path in files("lbmux", "bench", "pcaps", "tests") if path.name != "test_noqa.py"]
    lines = [(path, line) for path in paths for line in (ROOT / path).read_text().splitlines()]
    assert [f"{path}: {line.strip()}" for path, line in lines if SILENCED.search(line)] == []


def test_a_silenced_rule_without_either_is_found() -> None:
    said = ["x  # noqa", "x  # noqa: E501", "x  # noqa: E501 -- a table"]
    assert [bool(SILENCED.search(line)) for line in said] == [True, True, False]
