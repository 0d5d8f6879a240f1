from lbmux.health.checker import NOT_YET, Checker


def results(checker: Checker, text: str) -> str:
    """The states after each result: + is a success."""
    states = []
    for now, sign in enumerate(text):
        checker.record(sign == "+", "fine" if sign == "+" else "refused", now)
        states.append(checker.state[0])
    return "".join(states)


def test_begins_as_up() -> None:
    checker = Checker(rise=2, fall=3, since=7.0)
    assert (checker.state, checker.reason, checker.since) == ("up", NOT_YET, 7.0)


def test_falls_at_the_third_failure_in_a_row() -> None:
    assert results(Checker(rise=2, fall=3, since=0), "--+---") == "uuuuud"


def test_rises_at_the_second_success_in_a_row() -> None:
    assert results(Checker(rise=2, fall=1, since=0), "-+-++") == "ddddu"


def test_keeps_the_reason_and_the_time_of_the_change() -> None:
    checker = Checker(rise=2, fall=2, since=0)
    assert not checker.record(False, "refused", 5.0)
    assert checker.record(False, "no answer", 6.0)
    assert (checker.state, checker.reason, checker.since) == ("down", "no answer", 6.0)
    assert not checker.record(True, "connected", 7.0)
    assert (checker.reason, checker.since) == ("no answer", 6.0)
