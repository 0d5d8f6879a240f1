from ipaddress import ip_address

from lbmux.health.hosts import FALL, OVERLOADED_MISSES, RISE, STARTING_S, HostChecks

ONE, TWO = ip_address("10.1.1.2"), ip_address("2001:db8:1::2")


def checks() -> HostChecks:
    host_checks = HostChecks()
    host_checks.configure([ONE, TWO], 5.0)
    return host_checks


def test_a_host_that_answered_and_falls_silent_is_cut_off_and_comes_back() -> None:
    host_checks = checks()
    assert host_checks.record(ONE, True, 6.0) and host_checks.record(TWO, True, 6.0)
    for _ in range(FALL):
        assert host_checks.cut_off == {}
        host_checks.record(ONE, False, 7.0)
    assert host_checks.cut_off == {ONE: 7.0}
    for _ in range(RISE):
        assert host_checks.cut_off == {ONE: 7.0}
        host_checks.record(ONE, True, 9.0)
    assert host_checks.cut_off == {}


def test_a_host_that_never_answers_is_cut_off_once_another_has() -> None:
    """It has its time after the first answer: all agents may have just been started."""
    host_checks = checks()
    for _ in range(FALL):
        host_checks.record(ONE, False, 7.0)
    assert host_checks.cut_off == {} and host_checks.unprobed == {TWO}
    assert host_checks.record(TWO, True, 8.0)
    for _ in range(FALL):
        assert host_checks.cut_off == {} and host_checks.unprobed == {ONE}
        host_checks.record(ONE, False, 9.0)
    assert host_checks.cut_off == {ONE: 9.0} and not host_checks.unprobed


def test_hosts_that_come_back_one_after_the_other_are_not_cut_off() -> None:
    host_checks = checks()
    for host in (ONE, TWO):
        for _ in range(FALL):
            host_checks.record(host, False, 7.0)
    for host, is_answer in ((TWO, True), (ONE, False), (ONE, True), (TWO, True)):
        host_checks.record(host, is_answer, 8.0)
        assert host_checks.cut_off == {}
    assert not host_checks.unprobed


def test_no_host_is_cut_off_if_none_answers() -> None:
    host_checks = checks()
    host_checks.record(ONE, True, 6.0)
    for host in (ONE, TWO):
        for _ in range(FALL):
            host_checks.record(host, False, 7.0)
    assert host_checks.cut_off == {}


def answering() -> HostChecks:
    host_checks = checks()
    assert host_checks.record(ONE, True, 6.0) and host_checks.record(TWO, True, 6.0)
    return host_checks


def test_an_overloaded_mux_keeps_a_host_that_answers_now_and_then() -> None:
    host_checks = answering()
    for at in range(100):
        host_checks.record(ONE, at % OVERLOADED_MISSES == 0, 7.0, is_overloaded=True)
        assert host_checks.cut_off == {}


def test_an_overloaded_mux_finds_a_host_that_dies() -> None:
    host_checks = answering()
    for _ in range(OVERLOADED_MISSES + FALL):
        assert host_checks.cut_off == {}
        host_checks.record(ONE, False, 7.0, is_overloaded=True)
        host_checks.record(TWO, True, 7.0, is_overloaded=True)
    assert host_checks.cut_off == {ONE: 7.0}


def test_misses_of_an_overload_do_not_count_after_it() -> None:
    host_checks = answering()
    for _ in range(OVERLOADED_MISSES):
        host_checks.record(ONE, False, 7.0, is_overloaded=True)
    for _ in range(FALL):
        assert host_checks.cut_off == {}
        host_checks.record(ONE, False, 8.0)
    assert host_checks.cut_off == {ONE: 8.0}


def test_a_reload_keeps_what_is_known() -> None:
    host_checks = checks()
    assert host_checks.record(TWO, True, 6.0)
    for _ in range(FALL):
        host_checks.record(ONE, False, 7.0)
    host_checks.configure([ONE, TWO, ip_address("10.1.3.2")], 8.0)
    assert host_checks.cut_off == {ONE: 7.0}
    host_checks.configure([TWO], 9.0)
    assert host_checks.cut_off == {} and not host_checks.record(ONE, False, 10.0)


def test_a_host_that_answers_for_the_first_time_is_not_cut_off_any_more() -> None:
    host_checks = checks()
    assert host_checks.never_answered == {ONE, TWO}
    host_checks.record(TWO, True, 8.0)
    for _ in range(FALL):
        host_checks.record(ONE, False, 9.0)
    assert host_checks.cut_off == {ONE: 9.0} and host_checks.never_answered == {ONE}
    assert host_checks.record(ONE, True, 10.0)
    assert host_checks.cut_off == {} and not host_checks.never_answered


def test_a_host_that_may_only_be_starting_is_cut_off_but_not_reported() -> None:
    host_checks, later = checks(), 5.0 + STARTING_S
    host_checks.record(TWO, True, 6.0)
    for _ in range(FALL):
        host_checks.record(ONE, False, 6.5)
    assert host_checks.cut_off.keys() == {ONE}
    assert host_checks.reported(later - 0.1) == set() and host_checks.reported(later) == {ONE}
    assert host_checks.record(ONE, True, 7.0) and host_checks.reported(later) == set()
    for _ in range(FALL):
        host_checks.record(ONE, False, 8.0)
    assert host_checks.reported(8.0) == {ONE}  # the host has answered before


def test_what_the_probes_of_a_host_have_found() -> None:
    host_checks, name = checks(), f"host {ONE}"
    assert host_checks.describe(ip_address("10.1.3.2")) == ""
    assert host_checks.describe(ONE) == f"{name} has not answered through the tunnel yet"
    for host in (ONE, TWO):
        host_checks.record(host, True, 6.0)
    assert host_checks.describe(ONE) == f"{name} answers through the tunnel"
    for _ in range(FALL):
        host_checks.record(ONE, False, 7.0)
    assert host_checks.describe(ONE) == f"{name} does not answer through the tunnel"
    for _ in range(FALL):
        host_checks.record(TWO, False, 7.0)
    assert host_checks.describe(ONE) == f"{name} does not answer through the tunnel, and no other host does"
