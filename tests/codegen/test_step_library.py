"""How steps are compiled: each once, and linked again for every caller."""

from numba import njit

from lbmux.datapath.memory import int64, step


@step
def doubled(number):
    return number * int64(2)


@step
def doubled_and_more(number, more):
    return doubled(number) + more


@step
def both(number):
    return doubled_and_more(number, 1) + doubled_and_more(number, 2) + doubled(number)


@njit
def one_step(number):
    return doubled_and_more(number, 5)


@njit
def the_same_and_more(number):
    return both(number)


def test_a_step_linked_for_one_caller_is_linked_for_another() -> None:
    assert one_step(10) == 25
    assert the_same_and_more(10) == 63


def test_constants_are_numbers_as_others_are() -> None:
    assert the_same_and_more(10) == 63
    assert len(doubled_and_more.overloads) == 1
