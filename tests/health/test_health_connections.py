from ipaddress import ip_address

import pytest

from lbmux.health.health_connections import MAX_PER_SOURCE, HealthConnection, HealthConnections

MUX, OTHER, STRANGER = ip_address("10.0.1.2"), ip_address("2001:db8::2"), ip_address("198.51.100.2")


class Door:
    def __init__(self) -> None:
        self.connections, self.ended = HealthConnections(), list[int]()
        self.connections.allow(frozenset({MUX, OTHER}))

    def comes(self, source: object, number: int) -> HealthConnection:
        connection = self.connections.open(source, lambda: self.ended.append(number))  # type: ignore[arg-type]
        assert connection is not None
        return connection


def test_only_configured_sources_come_in() -> None:
    door = Door()
    assert door.connections.open(STRANGER, lambda: None) is None
    assert door.comes(MUX, 0) and door.comes(OTHER, 1) and len(door.connections) == 2


def test_the_oldest_silent_connection_of_a_source_is_closed_first() -> None:
    door = Door()
    door.connections.authenticated(door.comes(MUX, 0))
    for number in range(1, 301):
        door.comes(MUX, number)
    assert door.ended == list(range(1, 301 - MAX_PER_SOURCE))
    assert len(door.connections) == 1 + MAX_PER_SOURCE
    door.comes(OTHER, 1000)
    assert door.ended[-1] == 300 - MAX_PER_SOURCE, "another source is not limited by it"


def test_a_mux_that_restarts_often_keeps_few_connections() -> None:
    door = Door()
    for number in range(10):
        door.connections.authenticated(door.comes(MUX, number))
    assert door.ended == list(range(10 - MAX_PER_SOURCE))


def test_a_source_that_was_removed_from_the_file_is_disconnected() -> None:
    door = Door()
    door.comes(MUX, 0)
    stays = door.comes(OTHER, 1)
    door.connections.allow(frozenset({OTHER}))
    assert door.ended == [0] and len(door.connections) == 1
    door.connections.closed(stays)
    assert len(door.connections) == 0


@pytest.mark.parametrize("times", [1, 2])
def test_a_connection_may_be_closed_twice(times: int) -> None:
    door = Door()
    connection = door.comes(MUX, 0)
    for _ in range(times):
        door.connections.closed(connection)
    assert len(door.connections) == 0 and door.ended == []
