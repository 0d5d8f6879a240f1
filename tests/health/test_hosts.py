from ipaddress import ip_address

from lbmux.health.hosts import FALL, RISE, HostChecks

ONE, TWO = ip_address("10.1.1.2"), ip_address("2001:db8:1::2")


def checks() -> HostChecks:
    made = HostChecks()
    made.configure([ONE, TWO], 5.0)
    return made


def test_a_host_that_was_heard_and_falls_silent_is_cut_off_and_comes_back() -> None:
    made = checks()
    assert made.heard(ONE, True, 6.0) and made.heard(TWO, True, 6.0)
    for _ in range(FALL):
        assert made.cut_off == {}
        made.heard(ONE, False, 7.0)
    assert made.cut_off == {ONE: 7.0}
    for _ in range(RISE):
        assert made.cut_off == {ONE: 7.0}
        made.heard(ONE, True, 9.0)
    assert made.cut_off == {}


def test_a_host_that_never_answered_is_cut_off_once_another_has() -> None:
    made = checks()
    for _ in range(FALL):
        made.heard(ONE, False, 7.0)
    assert made.cut_off == {} and made.unsettled == {TWO}
    assert made.heard(TWO, True, 8.0)
    assert made.cut_off == {ONE: 7.0} and not made.unsettled


def test_where_none_answers_the_fault_may_be_ours() -> None:
    made = checks()
    made.heard(ONE, True, 6.0)
    for host in (ONE, TWO):
        for _ in range(FALL):
            made.heard(host, False, 7.0)
    assert made.cut_off == {}


def test_a_reload_keeps_what_is_known() -> None:
    made = checks()
    made.heard(TWO, True, 6.0)
    for _ in range(FALL):
        made.heard(ONE, False, 7.0)
    made.configure([ONE, TWO, ip_address("10.1.3.2")], 8.0)
    assert made.cut_off == {ONE: 7.0}
    made.configure([TWO], 9.0)
    assert made.cut_off == {} and not made.heard(ONE, False, 10.0)
