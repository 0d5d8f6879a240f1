"""Nouns in singular and plural."""

import pytest

from lbmux.errors import TableError
from lbmux.plurals import counted, noun


@pytest.mark.parametrize(("number", "said"), [(0, "0 flows"), (1, "1 flow"), (2, "2 flows")])
def test_a_number_with_its_noun(number: int, said: str) -> None:
    assert counted(number, "flow") == said


def test_nouns_that_take_no_s() -> None:
    assert [counted(number, "prefix", "prefixes") for number in (1, 2)] == ["1 prefix", "2 prefixes"]
    assert (noun(1, "moves", "move"), noun(2, "moves", "move")) == ("moves", "move")


def test_an_error_about_one_entry() -> None:
    assert str(TableError("names", 1, 0)).startswith("names: 1 entry needed")
