"""The search for a connection among hosts: what follows from a returned packet alone."""

import random
from ipaddress import ip_address

import numpy as np
import pytest

from lbmux.addresses import to_pair
from lbmux.datapath.encapsulate import TTL
from lbmux.slowpath.candidates import host_key, host_keys
from lbmux.slowpath.second_chance import SearchStage, next_candidate, returned_packet
from lbmux.slowpath.slow_path_flow import OUTER_TTL, Candidates, Flow
from lbmux.wire.packet import ip_packet, read_ip
from tests.slowpath.golden import HOST, HOST6, MUX, MUX6, ip, read, segment

FLOW = Flow(6, ip_address("198.51.100.2"), 1, ip_address("192.0.2.1"), 80)


def asked(candidates: Candidates, first: int) -> list[int]:
    """The backends that are asked after the first has refused; each is a host, its number the host's key."""
    order, stage, backend = [], SearchStage.FIRST, first
    while chosen := next_candidate(candidates, stage, [backend], backend):
        backend, stage = chosen
        order.append(backend)
    return order


def test_ordinary_packets_have_the_first_stage() -> None:
    assert TTL == OUTER_TTL == SearchStage.FIRST


@pytest.mark.parametrize("stage", SearchStage)
@pytest.mark.parametrize("routers", [0, 1, 62])
def test_the_stage_survives_any_number_of_routers(stage: SearchStage, routers: int) -> None:
    assert SearchStage.of(stage - routers) == stage


def test_the_former_backend_is_asked_after_the_slots_backend_then_the_rest() -> None:
    assert asked(Candidates([5, 3], [1, 7, 9], [1, 7, 9]), 5) == [3, 1, 7, 9]
    assert asked(Candidates([5, 3], [1, 7, 9], [1, 7, 9]), 3) == [5, 1, 7, 9]


def test_all_are_asked_if_an_old_entry_named_the_first() -> None:
    assert asked(Candidates([5, 3], [1, 7, 9], [1, 7, 9]), 9) == [5, 3, 1, 7, 9]
    assert asked(Candidates([5], [1, 7, 9], [1, 7, 9]), 8) == [5, 1, 7, 9]


def test_the_search_ends_without_candidates() -> None:
    assert asked(Candidates([5], [], []), 5) == []
    assert asked(Candidates([], [], []), 5) == []


def test_a_host_that_has_gone_meanwhile_does_not_restart_the_search() -> None:
    candidates = Candidates([5], [1, 9], [1, 9])
    assert next_candidate(candidates, SearchStage.REST, [], 7) == (9, SearchStage.REST)
    assert next_candidate(candidates, SearchStage.REST, [], 10) is None


@pytest.mark.parametrize("seed", range(20))
def test_each_search_ends_whatever_changes_in_between(seed: int) -> None:
    """Tables change at every round: each host is asked twice at most, once as a likely one."""
    chance = random.Random(seed)
    stage, backend, rounds = SearchStage.FIRST, chance.randrange(20), list[tuple[int, SearchStage]]()
    while True:
        rest = sorted(chance.sample(range(20), chance.randrange(20)))
        candidates = Candidates(chance.sample(range(20), chance.randrange(3)), rest, rest)
        if (chosen := next_candidate(candidates, stage, [backend], backend)) is None:
            break
        before, (backend, stage) = (stage, backend if stage == SearchStage.REST else -1), chosen
        assert (stage, backend if stage == SearchStage.REST else -1) > before
        rounds.append(chosen)
    assert len([one for one in rounds if one[1] < SearchStage.REST]) <= 2 and len(set(rounds)) == len(rounds)


def test_a_host_s_key_depends_on_flow_and_host_only() -> None:
    hosts = [ip_address(f"10.1.0.{n}") for n in range(1, 50)] + [ip_address(f"fd00::{n}") for n in range(1, 50)]
    high, low = (np.array(halves, np.uint64) for halves in zip(*map(to_pair, hosts), strict=True))
    keys = host_keys(FLOW, high, low).tolist()
    assert keys == [host_key(FLOW, host) for host in hosts] and len(set(keys)) == len(hosts)
    assert keys != host_keys(FLOW._replace(client_port=2), high, low).tolist()


def test_keys_are_the_same_on_every_machine() -> None:
    assert host_key(FLOW, ip_address("10.1.0.1")) == 0xB61C67522165FFAC


@pytest.mark.parametrize(("family", "host", "mux"), [(4, HOST, MUX), (6, HOST6, MUX6)])
def test_an_agent_returns_a_packet_with_its_search_stage(family: int, host: str, mux: str) -> None:
    inner = read(ip(family) / segment(20))
    for stage in SearchStage:
        protocol = 4 if family == 4 else 41
        outer = read_ip(ip_packet(ip_address(mux), ip_address(host), protocol, inner.data, hops=stage - 5))
        assert outer is not None
        back = read_ip(returned_packet(outer, inner))
        assert back is not None and (str(back.source), str(back.destination), back.hops) == (host, mux, stage)
        assert back.payload == inner.data
