"""Whose connections break, and whose do not: experiments of the scoreboard in small."""

from dataclasses import replace

import pytest

from lbmux.lab.scoreboard.scenarios import SCENARIOS
from lbmux.lab.systems.ananta_wide import wide
from tests.lab.measured import broken, measured, needs


@pytest.mark.root
@needs("bird")
@needs("haproxy")
def test_connections_of_a_dead_host_are_reset_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    """No host answers for it, so the mux resets the clients."""
    (change,) = measured(capsys, "facebook", "kill-host", "--seconds", "3").values()
    assert 0 < change["broken"] == change["own"] < 60
    assert change["reasons"].get("Connection reset by peer") == change["broken"]


@pytest.mark.root
@needs("bird")
def test_without_muxes_an_edge_that_dies_breaks_connections_and_a_reload_does_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcomes = measured(capsys, "cloudflare", "reload", "lose-mux", "--seconds", "2")
    assert outcomes["reload"]["broken"] == 0 < outcomes["lose-mux"]["own"] <= outcomes["lose-mux"]["broken"]


@pytest.mark.root
@needs("bird")
def test_a_connection_is_found_among_more_hosts_than_a_few(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mux that takes over knows nothing of the connections, and its table has each at another host."""
    hosts = 10
    known = {f"h{n}": f"host{n}" for n in range(1, hosts + 1)}
    scenario = replace(SCENARIOS["ananta-wide"], topology=lambda: wide(hosts=hosts), backends=known)
    monkeypatch.setitem(SCENARIOS, "ananta-wide", scenario)
    outcomes = measured(capsys, "ananta-wide", "reseed-table+lose-mux", "--seconds", "2")
    assert not broken(outcomes)


@pytest.mark.root
@needs("keepalived")
def test_the_second_mux_takes_over_when_the_first_loses_its_link(capsys: pytest.CaptureFixture[str]) -> None:
    (change,) = measured(capsys, "seesaw", "cut-link", "--seconds", "4").values()
    assert change["broken"] == 0 < change["stall_ms"] < 3500


@pytest.mark.root
@needs("bird")
def test_a_lost_pop_takes_its_connections_along_and_another_serves_new_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """An edge has no mux behind which its connections could live on."""
    (change,) = measured(capsys, "cloudflare-anycast", "lose-pop", "--seconds", "4").values()
    assert change["broken"] == 60 and 0 < change["normal_ms"] < 3500


@pytest.mark.root
@needs("bird")
def test_edges_that_balance_keep_what_is_not_at_the_lost_pop(capsys: pytest.CaptureFixture[str]) -> None:
    events = ("reseed-router", "add-mux", "lose-pop")
    outcomes = measured(capsys, "cloudflare-balanced", *events, "--driver", "packet", "--seconds", "4")
    assert not {event: one for event, one in outcomes.items() if one["broken"] > one["own"]}
    assert outcomes["reseed-router"]["broken"] == outcomes["add-mux"]["broken"] == 0 < outcomes["lose-pop"]["own"] < 60


@pytest.mark.root
@needs("bird")
@pytest.mark.parametrize("driver", ["packet", "xdp"])
def test_packets_without_a_connection_break_none(capsys: pytest.CaptureFixture[str], driver: str) -> None:
    """20,000 in three seconds; each is looked for at every host, and then answered with a reset or dropped."""
    assert not broken(measured(capsys, "ananta", "flood-ack", "--driver", driver, "--seconds", "5"))


@pytest.mark.root
@needs("bird")
def test_no_connection_breaks_where_only_flows_of_changed_slots_have_entries(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """First a mux is lost between six changes, and one without entries takes over.  Then a change and the sweeps after
    it happen while connections are idle."""
    events = ("three-changes+lose-mux+three-changes", "idle-change")
    found = measured(capsys, "ananta", *events, "--flows", "changed", "--seconds", "3")
    assert found.keys() == {*events} and not broken(found)


@pytest.mark.root
@needs("bird")
def test_no_udp_flow_breaks_in_six_changes(capsys: pytest.CaptureFixture[str]) -> None:
    """No host can say whether a UDP flow is its own, so a flow breaks with its first packet to another host."""
    event = "three-changes+three-changes"
    assert not broken(measured(capsys, "ananta-udp", event, "--flows", "changed", "--driver", "packet"))
