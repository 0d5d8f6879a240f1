from lbmux.errors import Problem
from lbmux.tools.import_config.entries import Block, Entry


def block() -> Block:
    return Block([Entry(1, "a", ("x",)), Entry(2, "a", ("2.0",)), Entry(3, "b"), Entry(4, "c", ("y",))], [], "top.")


def test_the_last_of_several_is_in_force() -> None:
    parsed = block()
    assert parsed.number("a", default=7) == 2
    assert parsed.left == [Problem(1, "top.a", "line 2 takes precedence")]


def test_a_word_that_is_not_a_number_is_left_out() -> None:
    parsed = block()
    assert parsed.number("c", default=7) == 7 and parsed.number("d", default=8) == 8
    assert parsed.left == [Problem(4, "top.c", "y is not a number")]


def test_entries_not_imported_are_listed_with_their_reason() -> None:
    parsed = block()
    parsed.all("a")
    parsed.leave_rest({"b": "why"})
    assert parsed.left == [Problem(3, "top.b", "why"), Problem(4, "top.c", "is not a key that lbmux knows")]
