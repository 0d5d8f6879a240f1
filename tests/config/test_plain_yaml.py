"""Documents built from events have PyYAML's values; unusual ones are left to PyYAML."""

import math
from pathlib import Path

import pytest
import yaml

from lbmux.config.plain_yaml import UnusualYamlError, load_plain

DOCUMENT = """\
# a comment
muxes: [10.0.1.2, "fd00::1", fd00::2]
numbers: {int: 80, hex: 0x50, octal: 010, float: 0.75, negative: -1, exponent: 1.5e+3, big: 1_000}
words: {yes: yes, "quoted": "80", empty: , tilde: ~, none: null, "off": off, plain: some text here, word: Yes}
text: |
  two
  lines
folded: >-
  one
  line
list:
- - nested
  - [a, b]
- {}
- []
"""


def test_values_are_those_of_pyyaml() -> None:
    text = DOCUMENT.replace("yes: yes, ", "")
    assert load_plain(text.encode()) == yaml.safe_load(text)


def test_numbers_keep_their_types() -> None:
    assert [type(one) for one in load_plain(b"[1, 1.0, true, null, '1', 1.2.3.4]")] == [
        int, float, bool, type(None), str, str,
    ]  # fmt: skip
    assert math.isnan(load_plain(b".nan"))


@pytest.mark.parametrize(
    "page", sorted((Path(__file__).parents[2] / "pcaps").glob("*.yaml")), ids=lambda page: page.name
)
def test_files_of_the_tree(page: Path) -> None:
    assert load_plain(page.read_bytes()) == yaml.safe_load(page.read_text())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "a: &one 1",
        "a: &one [1]\nb: *one",
        "a: {<<: {b: 1}}",
        "a: 1\na: 2",
        '"a": 1\na: 2',
        "80: web",
        "yes: 1",
        "[a, b]: 1",
        "a: !!str 1",
        "a: ! 1",
        "a: !!set {b}",
        "a: 2001-12-14",
        "a: =",
        "a: [1",
        "a: b: c",
        "a: 1\n---\nb: 2",
        "[" * 100_000,
        "a: \xff\x00",
    ],
)
def test_unusual_documents_are_parsed_by_pyyaml(text: str) -> None:
    with pytest.raises(UnusualYamlError):
        load_plain(text.encode("latin-1"))
