"""The search for a connection among hosts."""

from ipaddress import ip_address

from lbmux.slowpath.flow import Flow
from lbmux.slowpath.returned import FORGOTTEN_S, MOST_FLOWS, Searches


def flow(port: int = 1) -> Flow:
    return Flow(6, ip_address("198.51.100.2"), port, ip_address("192.0.2.1"), 80)


def test_each_candidate_is_asked_once() -> None:
    searches = Searches()
    assert searches.next(flow(), [3], [3, 5, 7], 0.0) == 5
    assert searches.next(flow(), [5], [3, 5, 7], 0.1) == 7
    assert searches.next(flow(), [7], [3, 5, 7], 0.2) is None


def test_packets_that_were_under_way_go_where_the_first_went() -> None:
    searches = Searches()
    assert [searches.next(flow(), [3], [3, 5, 7], 0.0) for _ in range(3)] == [5, 5, 5]


def test_all_backends_of_a_host_are_asked_at_once() -> None:
    assert Searches().next(flow(), [3, 5], [3, 5, 7], 0.0) == 7


def test_flows_are_looked_for_by_themselves_and_forgotten_in_time() -> None:
    searches = Searches()
    assert searches.next(flow(1), [3], [3, 5], 0.0) == 5
    assert searches.next(flow(2), [5], [3, 5], 0.0) == 3
    assert searches.next(flow(1), [5], [3, 5], FORGOTTEN_S + 0.1) == 3


def test_the_number_of_flows_is_bounded() -> None:
    searches = Searches()
    for port in range(MOST_FLOWS + 1):
        searches.next(flow(port), [3], [3, 5], 0.0)
    assert searches.next(flow(0), [5], [3, 5], 0.0) == 3  # the first is forgotten
    assert searches.next(flow(MOST_FLOWS), [5], [3, 5], 0.0) is None
