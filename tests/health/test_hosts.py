from ipaddress import ip_address

from lbmux.health.hosts import FALL, RISE, STARTING_S, HostChecks

ONE, TWO = ip_address("10.1.1.2"), ip_address("2001:db8:1::2")


def checks() -> HostChecks:
    made = HostChecks()
    made.configure([ONE, TWO], 5.0)
    return made


def test_a_host_that_answered_and_falls_silent_is_cut_off_and_comes_back() -> None:
    made = checks()
    assert made.record(ONE, True, 6.0) and made.record(TWO, True, 6.0)
    for _ in range(FALL):
        assert made.cut_off == {}
        made.record(ONE, False, 7.0)
    assert made.cut_off == {ONE: 7.0}
    for _ in range(RISE):
        assert made.cut_off == {ONE: 7.0}
        made.record(ONE, True, 9.0)
    assert made.cut_off == {}


def test_a_host_that_never_answers_is_cut_off_once_another_has() -> None:
    """It has its time after the first answer: all agents may have just been started."""
    made = checks()
    for _ in range(FALL):
        made.record(ONE, False, 7.0)
    assert made.cut_off == {} and made.unprobed == {TWO}
    assert made.record(TWO, True, 8.0)
    for _ in range(FALL):
        assert made.cut_off == {} and made.unprobed == {ONE}
        made.record(ONE, False, 9.0)
    assert made.cut_off == {ONE: 9.0} and not made.unprobed


def test_hosts_that_come_back_one_after_the_other_are_not_cut_off() -> None:
    made = checks()
    for host in (ONE, TWO):
        for _ in range(FALL):
            made.record(host, False, 7.0)
    for host, is_answer in ((TWO, True), (ONE, False), (ONE, True), (TWO, True)):
        made.record(host, is_answer, 8.0)
        assert made.cut_off == {}
    assert not made.unprobed


def test_no_host_is_cut_off_if_none_answers() -> None:
    made = checks()
    made.record(ONE, True, 6.0)
    for host in (ONE, TWO):
        for _ in range(FALL):
            made.record(host, False, 7.0)
    assert made.cut_off == {}


def test_a_reload_keeps_what_is_known() -> None:
    made = checks()
    assert made.record(TWO, True, 6.0)
    for _ in range(FALL):
        made.record(ONE, False, 7.0)
    made.configure([ONE, TWO, ip_address("10.1.3.2")], 8.0)
    assert made.cut_off == {ONE: 7.0}
    made.configure([TWO], 9.0)
    assert made.cut_off == {} and not made.record(ONE, False, 10.0)


def test_a_host_that_answers_for_the_first_time_is_not_cut_off_any_more() -> None:
    made = checks()
    assert made.never_answered == {ONE, TWO}
    made.record(TWO, True, 8.0)
    for _ in range(FALL):
        made.record(ONE, False, 9.0)
    assert made.cut_off == {ONE: 9.0} and made.never_answered == {ONE}
    assert made.record(ONE, True, 10.0)
    assert made.cut_off == {} and not made.never_answered


def test_a_host_that_may_only_be_starting_is_cut_off_but_not_reported() -> None:
    made, later = checks(), 5.0 + STARTING_S
    made.record(TWO, True, 6.0)
    for _ in range(FALL):
        made.record(ONE, False, 6.5)
    assert made.cut_off.keys() == {ONE}
    assert made.reported(later - 0.1) == set() and made.reported(later) == {ONE}
    assert made.record(ONE, True, 7.0) and made.reported(later) == set()
    for _ in range(FALL):
        made.record(ONE, False, 8.0)
    assert made.reported(8.0) == {ONE}  # the host has answered before


def test_what_the_probes_of_a_host_have_found() -> None:
    made, name = checks(), f"host {ONE}"
    assert made.describe(ip_address("10.1.3.2")) == ""
    assert made.describe(ONE) == f"{name} has not answered through the tunnel yet"
    for host in (ONE, TWO):
        made.record(host, True, 6.0)
    assert made.describe(ONE) == f"{name} answers through the tunnel"
    for _ in range(FALL):
        made.record(ONE, False, 7.0)
    assert made.describe(ONE) == f"{name} does not answer through the tunnel"
    for _ in range(FALL):
        made.record(TWO, False, 7.0)
    assert made.describe(ONE) == f"{name} does not answer through the tunnel, and no other host does"
