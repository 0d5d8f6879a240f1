"""The connections of a host that dies are reset by default; with rehash, another host gets them."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, Wire
from tests.daemons.slow_lab import balanced
from tests.daemons.web_lab import DRIVERS, echo, server, to_host, wait_for_rows, wait_until, web, without_a_way

pytestmark = pytest.mark.root
REPEATED_S = 30
"""Within this time a client repeats what got no answer: its pauses double up to then."""


@contextlib.contextmanager
def first_host_dead(
    lab: Lab, kernel: bool, service: dict[str, Any]
) -> Iterator[tuple[Daemon, socket.socket, socket.socket]]:
    """The mux that knows it, a connection of the host that is gone, and one of the other's."""
    options = ("--driver", "xdp", "--detach-on-exit") if kernel else ()
    with (
        server(lab, 1),
        server(lab, 2),
        balanced(lab, options=options, agent_options=options, services=[service]) as mux,
        to_host(lab, 1) as lost,
        to_host(lab, 2) as kept,
        without_a_way(lab, 1),
    ):
        wait_until(mux, "h1", "down", 5)
        wait_for_rows(mux, "h2")
        yield mux, lost, kept


@DRIVERS
def test_an_idle_client_of_a_dead_host_is_reset(lab: Lab, kernel: bool) -> None:
    with first_host_dead(lab, kernel, web(kind="tcp")) as (mux, lost, kept):
        with pytest.raises(ConnectionResetError):
            lost.recv(100)  # raises at once; without a reset it times out after three seconds
        echo(kept)
        assert ask(mux.control, "counters")["slowpath"]["returned_reset"] >= 1


@DRIVERS
def test_no_connection_is_reset_while_all_hosts_are_silent(lab: Lab, kernel: bool) -> None:
    """A host that stays away is another matter: its client is reset once there is a host that can be asked."""
    options = ("--driver", "xdp", "--detach-on-exit") if kernel else ()
    with (
        server(lab, 1),
        server(lab, 2),
        balanced(lab, options=options, agent_options=options, services=[web(kind="tcp")]) as mux,
        to_host(lab, 1) as lost,
        to_host(lab, 2) as kept,
        without_a_way(lab, 1),
    ):
        with without_a_way(lab, 2):
            for name in ("h1", "h2"):
                wait_until(mux, name, "down", 5)
            wait_for_rows(mux)
            for client in (lost, kept):
                client.sendall(b"still here")
                client.settimeout(1)
                with pytest.raises(TimeoutError):
                    client.recv(100)
        wait_for_rows(mux, "h2")
        for client in (lost, kept):
            client.settimeout(REPEATED_S)
        assert kept.recv(100) == b"still here"
        with pytest.raises(ConnectionResetError):
            lost.recv(100)


@DRIVERS
def test_with_rehash_another_host_gets_the_packets_of_a_dead_ones_clients(lab: Lab, kernel: bool) -> None:
    """The host answers for itself: its kernel resets unknown connections, and no other connection breaks."""
    with first_host_dead(lab, kernel, web(kind="tcp") | {"on_down": "rehash"}) as (mux, lost, kept):
        with Wire(lab, "host2") as wire:
            lost.sendall(b"hello?")
            assert any(b"hello?" in frame for frame in wire.frames(100, 0.5))
        with pytest.raises(ConnectionResetError):
            lost.recv(100)
        echo(kept)
        counts = ask(mux.control, "counters")["slowpath"]
        assert not counts.get("returned_reset"), "that reset was the host's, not the mux's"
