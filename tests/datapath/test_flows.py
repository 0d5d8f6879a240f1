"""What the flow table promises, seen through a mux."""

import random
from functools import cache

import numpy as np
import pytest

from lbmux.config.models import Config
from lbmux.datapath.tables import BUCKET_BYTES, CLOSING, FLOW, HIT, NEW, OVERFLOWED, TRUSTED, UNTRUSTED, WAYS, Sizes
from lbmux.datapath.verdicts import Verdict
from lbmux.tables.mux_tables import sizes_for
from tests.datapath.craft import ACK, FIN, RST, SYN, Craft
from tests.datapath.harness import Frames, Machine
from tests.datapath.one_service import IDLE, VIP, clients, mux, re_slot, send
from tests.datapath.plain_flows import LONGEST, Idle
from tests.datapath.plain_hash import keyed, second_hash
from tests.datapath.plain_mux import Backend, Service
from tests.datapath.plain_packet import TCP

FLOW_BYTES = 64
MEBIBYTE = 1 << 20


def test_a_flow_keeps_its_backend_when_the_table_changes() -> None:
    machine, flows = mux(), clients(100)
    before = send(machine, flows)
    re_slot(machine, 4, 5)
    assert send(machine, flows) == before
    assert set(send(machine, clients(50, seed=2))) == {4, 5}


def test_flows_of_one_client_differ_by_port() -> None:
    machine = mux()
    frames = [Craft(source_port=port).frame() for port in range(1, 200)]
    assert set(send(machine, frames)) == {0, 1, 2, 3}
    assert machine.lookups()["new"] == 199


def test_the_second_packet_makes_a_flow_trusted() -> None:
    machine, frame = mux(), clients(1)
    send(machine, frame)
    assert (machine.flows(UNTRUSTED), machine.flows(TRUSTED)) == (1, 0)
    send(machine, frame)
    assert (machine.flows(UNTRUSTED), machine.flows(TRUSTED)) == (0, 1)


def trusted_keys(machine: Machine) -> set[tuple[int, int]]:
    flows = machine.tables.flows
    return {(int(row["low"]), int(row["ports"])) for row in flows[flows["state"] == TRUSTED]}


@cache
def flood(turn: int) -> list[bytes]:
    """Twice as many new flows as the table has entries."""
    return clients(2 * 256 * WAYS, seed=100 + turn, flags=SYN)


@pytest.mark.slow
@pytest.mark.parametrize(("load", "share"), [(0.1, 1.0), (0.25, 0.99), (0.5, 0.95)])
def test_a_syn_flood_does_not_push_out_a_trusted_flow(load: float, share: float) -> None:
    """Ananta, section 3.3.3: a hundred times the table in new flows, and every established one is still known."""
    machine = mux(buckets=256)
    flows = clients(int(load * 256 * WAYS))
    for _ in range(8):  # in the first rounds untrusted flows evict each other
        send(machine, flows)
    assert machine.flows(TRUSTED) >= share * len(flows)
    kept = trusted_keys(machine)
    for turn in range(50):
        send(machine, flood(turn), now=2 + turn)
    assert trusted_keys(machine) == kept
    assert machine.lookups()["evicted"] > 50 * 256


def test_a_syn_flood_leaves_the_trusted_their_backends() -> None:
    machine = mux(buckets=256)
    flows = clients(100)
    before = send(machine, flows)
    for _ in range(4):
        send(machine, flows)
    assert machine.flows(TRUSTED) == 100
    for turn in range(10):
        send(machine, clients(2048, seed=50 + turn, flags=SYN), now=2)
    re_slot(machine, 7)
    assert send(machine, flows, now=3) == before


def test_a_new_flow_takes_the_place_of_an_untrusted_one_first() -> None:
    """One bucket, three trusted, one untrusted: however many come, only that one place changes its owner."""
    machine = mux(buckets=1)
    trusted = clients(3)
    for _ in range(2):
        send(machine, trusted)
    send(machine, clients(40, seed=2))
    assert (machine.flows(TRUSTED), machine.flows(UNTRUSTED)) == (3, 1)
    assert machine.lookups() == {"hit": 3, "new": 4, "evicted": 39, "full": 0, "gone": 0, "expired": 0}


def test_trusted_flows_do_not_exceed_their_share() -> None:
    machine = mux(buckets=1, trusted_ways=2)
    for _ in range(3):
        send(machine, clients(4))
    assert (machine.flows(TRUSTED), machine.flows(UNTRUSTED)) == (2, 2)


def test_the_fourth_established_flow_of_a_bucket_is_trusted_in_its_second() -> None:
    """The flow moves to its second bucket if the first has its share of trusted flows, so the next flood cannot evict
    it.
    """
    machine = mux(buckets=2)
    pool = [Craft(source_port=port) for port in range(1, 200)]
    flows = [craft.frame() for craft in pool if buckets_of(machine, craft) == (0, 1)][:4]
    for _ in range(3):
        send(machine, flows)
    assert (machine.tables.flows["state"] == TRUSTED).sum(1).tolist() == [3, 1]
    before = send(machine, flows)
    send(machine, clients(500, flags=SYN))
    re_slot(machine, 7)
    assert send(machine, flows) == before


def buckets_of(machine: Machine, craft: Craft) -> tuple[int, int]:
    """The first and the second bucket of a flow, of two."""
    low = int.from_bytes(b"\0\0\xff\xff" + craft.source, "little")
    ports = int.from_bytes(craft.packet()[20:24], "little")
    hashed = keyed(machine.keys, 0, low, ports, int.from_bytes(craft.destination, "little"))
    return hashed % 2, second_hash(hashed) % 2


def test_untrusted_flows_leave_room_while_they_have_their_share() -> None:
    machine = mux(buckets=1, untrusted_ways=2)
    send(machine, clients(20, flags=SYN))
    assert machine.flows(UNTRUSTED) == 2


def test_a_full_table_still_forwards_by_the_maglev_table() -> None:
    """Every place trusted: nothing new is remembered, the same flow gets the same backend, and it is counted."""
    machine = mux(buckets=1, trusted_ways=WAYS)
    for _ in range(2):
        send(machine, clients(WAYS))
    assert machine.flows(TRUSTED) == WAYS
    newcomers = clients(50, seed=3)
    first = send(machine, newcomers)
    assert send(machine, newcomers) == first
    assert set(first) == {0, 1, 2, 3}
    assert machine.lookups()["full"] == 100
    assert machine.flows(TRUSTED) == WAYS


def test_a_flow_whose_first_bucket_is_full_is_found_in_its_second() -> None:
    """At three quarters full, nearly all flows have a place, thanks to the second bucket."""
    machine = mux(buckets=1024)
    flows = clients(2048)
    for _ in range(3):
        send(machine, flows)
    assert (machine.tables.flows["version"] & (OVERFLOWED >> 48)).any()
    assert machine.flows(TRUSTED) + machine.flows(UNTRUSTED) > 0.97 * len(flows)


def test_a_flow_of_a_backend_that_is_gone_goes_to_another() -> None:
    machine, frame = mux(slots=(0,)), clients(1)
    assert send(machine, frame) == [0]
    machine.tables.backends[0]["state"] = 0
    re_slot(machine, 5)
    assert send(machine, frame) == [5]
    assert machine.lookups()["gone"] == 1
    assert send(machine, frame) == [5]


def test_a_flow_whose_backend_s_row_has_a_new_owner_is_not_used() -> None:
    """The row is in use for another backend: its generation differs."""
    machine, frame = mux(slots=(0,)), clients(1)
    send(machine, frame)
    machine.tables.backends[0]["generation"] = 1
    re_slot(machine, 5)
    assert send(machine, frame) == [5]
    assert machine.lookups()["gone"] == 1


def test_a_draining_backend_keeps_its_flows() -> None:
    machine, frame = mux(slots=(0,)), clients(1)
    send(machine, frame)
    machine.tables.backends[0]["state"] = 2
    re_slot(machine, 5)
    assert send(machine, frame) == [0]
    assert send(machine, clients(1, seed=2)) == [5]


@pytest.mark.parametrize(
    ("packets", "last_flags", "limit"),
    [(1, ACK, IDLE.untrusted), (2, ACK, IDLE.trusted), (3, FIN | ACK, IDLE.closing), (3, RST, IDLE.closing)],
    ids=["untrusted", "trusted", "after FIN", "after RST"],
)
@pytest.mark.parametrize("start", [1, 0xFFFFFFF0], ids=["early", "as the clock turns over"])
def test_idle_time(packets: int, last_flags: int, limit: int, start: int) -> None:
    def known_after(idle: int) -> bool:
        machine = mux(slots=(0,))
        for number in range(packets):
            send(machine, [Craft(flags=last_flags if number == packets - 1 else ACK).frame()], start)
        re_slot(machine, 5)
        return send(machine, [Craft().frame()], (start + idle) & 0xFFFFFFFF) == [0]

    assert known_after(limit)
    assert not known_after(limit + 1)


def test_every_packet_restarts_the_idle_time() -> None:
    machine = mux(slots=(0,))
    send(machine, [Craft().frame()], 1)
    re_slot(machine, 5)
    for now in range(90, 5000, 90):
        assert send(machine, [Craft().frame()], now) == [0]


def test_a_clock_that_steps_back_a_little_expires_nothing() -> None:
    machine = mux(slots=(0,))
    send(machine, [Craft().frame()], 1000)
    re_slot(machine, 5)
    assert send(machine, [Craft().frame()], 995) == [0]


def test_an_idle_flows_place_is_free() -> None:
    machine = mux(buckets=1)
    send(machine, clients(WAYS), now=1)
    send(machine, clients(WAYS, seed=2), now=1 + IDLE.untrusted + 1)
    assert machine.lookups() == {"hit": 0, "new": 8, "evicted": 0, "full": 0, "gone": 0, "expired": 0}


def test_a_service_of_short_idle_time_does_not_take_the_places_of_one_that_waits_longer() -> None:
    """A flood on one service, and the established but quiet flows of another in the same bucket."""
    machine = Machine.make(buckets=1)
    patient = Service(VIP, TCP, 80, (0,), Idle(untrusted=100, trusted=LONGEST, closing=10))
    hasty = Service(VIP, TCP, 81, (1,), IDLE)
    machine.install_mux([patient, hasty], [Backend(bytes([10, 1, 0, at])) for at in range(8)])
    quiet = clients(WAYS - 1)
    for _ in range(2):
        send(machine, quiet)
    later = 1 + IDLE.trusted + 1
    pick = random.Random(3)
    send(machine, [Craft(source=pick.randbytes(4), destination_port=81).frame() for _ in range(50)], later)
    assert machine.flows(TRUSTED) == WAYS - 1
    machine.tables.lookups[:] = 0
    send(machine, quiet, later)
    assert machine.lookups()["hit"] == WAYS - 1


def test_a_syn_after_a_fin_begins_afresh() -> None:
    """A client reuses its port: the current table places the new connection."""
    machine = mux(slots=(0,))
    for flags in (SYN, ACK, FIN | ACK):
        assert send(machine, [Craft(flags=flags).frame()]) == [0]
    assert machine.flows(CLOSING) == 1
    re_slot(machine, 5)
    assert send(machine, [Craft(flags=ACK).frame()]) == [0]  # the last tick of the old flow
    assert send(machine, [Craft(flags=SYN).frame()]) == [5]
    assert machine.lookups()["expired"] == 1
    assert machine.flows(UNTRUSTED) == 1


def test_a_repeated_syn_is_the_same_connection() -> None:
    machine = mux(slots=(0,))
    send(machine, [Craft(flags=SYN).frame()])
    re_slot(machine, 5)
    assert send(machine, [Craft(flags=SYN).frame()]) == [0]


def test_all_workers_share_the_table_and_each_has_its_own_counters() -> None:
    machine = Machine.make(workers=2)
    machine.install_mux([Service(VIP, TCP, 80, (0,), IDLE)], [Backend(bytes(4))])
    for worker in (1, 0):
        machine.at(worker).forward(Frames(clients(5)), 1)
    assert (machine.tables.flows["state"] != 0).sum() == 5
    assert machine.tables.lookups[:, [HIT, NEW]].tolist() == [[5, 0], [0, 5]]
    assert machine.tables.traffic[:, 0]["packets"].tolist() == [5, 5]


def test_a_worker_beyond_the_tables_touches_nothing() -> None:
    machine = mux()
    batch = Frames(clients(3))
    machine.at(1).forward(batch, 1)
    assert set(batch.verdict) == {Verdict.OUT_OF_TABLE}
    assert not machine.verdicts()


def test_a_flow_takes_at_most_64_bytes() -> None:
    config = Config.model_validate({"services": []})
    sizes = sizes_for(config)
    assert sizes.buckets * BUCKET_BYTES <= 64 * MEBIBYTE
    assert sizes.buckets * BUCKET_BYTES / config.flows.limit <= FLOW_BYTES
    assert sizes.buckets * WAYS >= config.flows.limit
    assert FLOW.itemsize <= FLOW_BYTES
    assert Sizes().buckets == sizes.buckets


def test_a_bucket_is_two_cache_lines() -> None:
    assert BUCKET_BYTES == 128
    assert np.zeros(1, FLOW).itemsize * WAYS == BUCKET_BYTES


def test_the_limit_of_flows_fits_the_table() -> None:
    """The table gets as many flows as the limit, each seen a few times: 98 of 100 are kept, 95 of them as trusted."""
    machine = mux(buckets=sizes_for(Config.model_validate({"services": [], "flows": {"limit": 16384}})).buckets)
    flows = clients(16384)
    for _ in range(5):
        send(machine, flows)
    trusted, untrusted = machine.flows(TRUSTED), machine.flows(UNTRUSTED)
    assert trusted >= 0.95 * 16384
    assert trusted + untrusted >= 0.98 * 16384
