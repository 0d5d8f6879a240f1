"""The search for a connection among hosts."""

from ipaddress import ip_address

from lbmux.slowpath.flow import Flow
from lbmux.slowpath.returned import FORGOTTEN_S, MOST_FLOWS, MOST_SEGMENTS, Searches

FIRST = (1000, 40)


def flow(port: int = 1) -> Flow:
    return Flow(6, ip_address("198.51.100.2"), port, ip_address("192.0.2.1"), 80)


def test_each_candidate_is_asked_once() -> None:
    searches = Searches()
    assert searches.next(flow(), FIRST, [3], [3, 5, 7], 0.0) == 5
    assert searches.next(flow(), FIRST, [5], [3, 5, 7], 0.1) == 7
    assert searches.next(flow(), FIRST, [7], [3, 5, 7], 0.2) is None


def test_segments_that_were_under_way_go_where_the_first_went() -> None:
    searches = Searches()
    assert [searches.next(flow(), (n, 40), [3], [3, 5, 7], 0.0) for n in range(3)] == [5, 5, 5]
    assert [searches.is_copy(flow(), (n, 40), [5]) for n in range(4)] == [False] * 4


def test_a_segment_that_is_elsewhere_is_not_looked_for_twice() -> None:
    searches = Searches()
    assert not searches.is_copy(flow(), FIRST, [3])
    searches.next(flow(), FIRST, [3], [3, 5, 7], 0.0)
    assert searches.is_copy(flow(), FIRST, [3]) and not searches.is_copy(flow(), FIRST, [5])
    searches.next(flow(), FIRST, [5], [3, 5, 7], 0.0)
    assert searches.is_copy(flow(), FIRST, [5]) and not searches.is_copy(flow(), FIRST, [7])
    with_data = (FIRST[0], FIRST[1] + 100)  # an acknowledgment has the number of the next byte
    assert not searches.is_copy(flow(), with_data, [3]) and not searches.is_copy(flow(2), FIRST, [3])


def test_the_number_of_segments_is_bounded_and_those_beyond_go_on_all_the_same() -> None:
    searches = Searches()
    for n in range(MOST_SEGMENTS + 2):
        assert searches.next(flow(), (n, 40), [3], [3, 5], 0.0) == 5
    last = MOST_SEGMENTS - 1
    assert [searches.is_copy(flow(), (n, 40), [3]) for n in (0, last, last + 1)] == [True, True, False]


def test_all_backends_of_a_host_are_asked_at_once() -> None:
    assert Searches().next(flow(), FIRST, [3, 5], [3, 5, 7], 0.0) == 7


def test_flows_are_looked_for_by_themselves_and_forgotten_in_time() -> None:
    searches = Searches()
    assert searches.next(flow(1), FIRST, [3], [3, 5], 0.0) == 5
    assert searches.next(flow(2), FIRST, [5], [3, 5], 0.0) == 3
    assert searches.next(flow(1), FIRST, [5], [3, 5], FORGOTTEN_S + 0.1) == 3


def test_the_number_of_flows_is_bounded() -> None:
    searches = Searches()
    for port in range(MOST_FLOWS + 1):
        searches.next(flow(port), FIRST, [3], [3, 5], 0.0)
    assert searches.next(flow(0), FIRST, [5], [3, 5], 0.0) == 3  # the first is forgotten
    assert searches.next(flow(MOST_FLOWS), FIRST, [5], [3, 5], 0.0) is None
