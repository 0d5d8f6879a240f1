"""A mux's tables, planned and put in force: what stays where it was, and what packets see of a reload."""

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address
from random import Random
from typing import Any

import numpy as np
import pytest

from lbmux.addresses import mac_to_int
from lbmux.backends.effective import effective
from lbmux.config.models import Config
from lbmux.datapath.tables import DRAINING, EVICTED, FORMER_TABLE, GONE, TICK_SHIFT, UP, Sizes
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import TableError
from lbmux.linux.next_hops import NextHop
from lbmux.tables import maglev
from lbmux.tables.mux_rows import ticks
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.tables.row_identities import identity
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables, now_ticks
from tests.datapath.craft import SYN, Craft
from tests.datapath.harness import Frames

SIZE = 251
LOCAL = IPv4Address("10.0.0.1")
MAC = mac_to_int("02:00:00:00:00:09")


def backend(number: int, weight: int = 1) -> dict[str, Any]:
    return {"name": f"h{number}", "dip": f"10.1.0.{number}", "weight": weight}


def service(name: str, vip: str, *backends: dict[str, Any], port: int = 80, **more: Any) -> dict[str, Any]:
    return {"name": name, "vip": vip, "protocol": "tcp", "port": port, "backends": list(backends), **more}


def config(*services: dict[str, Any], **more: Any) -> Config:
    document = {"maglev": {"size": SIZE}, "flows": {"limit": 65536}, "services": list(services)} | more
    return Config.model_validate(document)


def web(*numbers: int, **more: Any) -> dict[str, Any]:
    return service("web", "192.0.2.1", *map(backend, numbers), **more)


THREE = config(web(1, 2, 3))


class Mux:
    """Tables, the control side's hold on them, and a worker."""

    clock = staticmethod(now_ticks)

    def __init__(self, first: Config, sizes: Sizes | None = None) -> None:
        self.tables = Tables.allocate(sizes or sizes_for(first))
        for number in range(7):  # the same secret keys in every run: with others a flow may be evicted
            self.tables.settings[0][f"key{number}"] = identity("key", number)
        self.worker = Worker(self.tables)
        self.restart()
        self.load(first)

    def restart(self) -> None:
        """A new process on the same tables."""
        self.control = MuxTables(self.tables, LOCAL, clock=self.clock)

    def load(self, new: Config) -> None:
        self.control.commit(self.control.plan(new))
        for number in range(1, 10):
            self.hop(number)

    def hop(self, number: int, **changes: Any) -> None:
        hop = NextHop(interface_index=7, source_mac=1, destination_mac=MAC + number, mtu=1500)
        self.control.set_next_hop(IPv4Address(f"10.1.0.{number}"), replace(hop, **changes))

    def row(self, number: int, name: str = "web") -> int:
        return self.control.rows[name, f"h{number}"]

    def send(self, clients: range = range(500), now: int = 1, **fields: Any) -> list[int]:
        """Return the backends that packets of these clients went to, from the outer headers; -1 for none."""
        batch = Frames([Craft(source=number.to_bytes(4), **fields).frame() for number in clients])
        self.worker.forward(batch, now)
        assert self.tables.lookups[0][EVICTED] == 0
        return [frame[33] if verdict == Verdict.FORWARDED else -1 for verdict, _, frame in batch.results()]

    def slots(self, row: int = 0) -> np.ndarray:
        """The Maglev table in force of a service."""
        place = self.tables.services[self.tables.active, row]
        return self.tables.slots["backend"][place["slots"] : place["slots"] + place["size"]].copy()


def test_new_flows_go_to_all_backends_by_weight() -> None:
    mux = Mux(config(service("web", "192.0.2.1", backend(1, 1), backend(2, 2), backend(3, 5))))
    counted = Counter(mux.slots().tolist())
    for number, weight in ((1, 1), (2, 2), (3, 5)):
        assert counted[mux.row(number)] == pytest.approx(SIZE * weight / 8, abs=1.5)
    seen = Counter(mux.send(range(4000)))
    assert seen[3] / 4000 == pytest.approx(5 / 8, abs=0.05)
    assert set(seen) == {1, 2, 3}


def test_services_differ_by_port_protocol_and_vip() -> None:
    mux = Mux(
        config(
            web(1),
            service("secure", "192.0.2.1", backend(2), port=443),
            service("dns", "192.0.2.1", backend(3)) | {"protocol": "udp"},
            service("other", "192.0.2.2", backend(4)),
        )
    )
    one = range(1)
    assert mux.send(one) == [1]
    assert mux.send(one, destination_port=443) == [2]
    assert mux.send(one, protocol=17) == [3]
    assert mux.send(one, destination=bytes([192, 0, 2, 2])) == [4]
    assert mux.send(one, destination_port=444) == [-1]


def test_rows_stay_over_a_reload() -> None:
    mux = Mux(THREE)
    rows = {number: mux.row(number) for number in (1, 2, 3)}
    mux.load(config(service("first", "192.0.2.9", backend(9)), web(4, 3, 2, 1, 5)))
    assert {number: mux.row(number) for number in (1, 2, 3)} == rows
    assert len({mux.row(number) for number in (1, 2, 3, 4, 5)} | {mux.row(9, "first")}) == 6


def test_an_unchanged_service_keeps_its_slots_without_a_build() -> None:
    mux = Mux(THREE)
    before = mux.tables.services[mux.tables.active, 0].copy()
    plan = mux.control.plan(config(web(1, 2, 3), service("other", "192.0.2.2", backend(4))))
    assert len(plan.began) == 1
    mux.control.commit(plan)
    assert mux.tables.services[mux.tables.active, 0] == before


def test_the_table_of_a_named_pool_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built, build = list[Any](), maglev.build
    monkeypatch.setattr(maglev, "build", lambda *of: built.append(of) or build(*of))
    pool = {"pools": {"front": [backend(1), backend(2, 3), backend(3)]}}
    ends = {"vip": "192.0.2.1", "protocol": "tcp", "pool": "front"}
    services = [{"name": name, "port": port} | ends for name, port in (("web", 80), ("tls", 443))]
    mux = Mux(config(*services, **pool))
    assert len(built) == 1
    names = {row: name for (_, name), row in mux.control.rows.items()}
    web, tls = ([names[row] for row in mux.slots(at).tolist()] for at in (0, 1))
    assert web == tls and set(web) == {"h1", "h2", "h3"}
    own = Mux(config(service("web", "192.0.2.1", backend(1), backend(2, 3), backend(3))))
    names = {row: name for (_, name), row in own.control.rows.items()}
    assert [names[row] for row in own.slots(0).tolist()] == web


def test_automatic_tables_are_as_large_as_their_services_need() -> None:
    auto = {"maglev": {"size": "auto"}}
    few, many = web(1, 2), service("many", "192.0.2.2", *map(backend, range(1, 12)))
    mux = Mux(config(few, many, **auto))
    assert mux.tables.services[mux.tables.active, :2]["size"].tolist() == [1021, 2039]
    assert set(mux.send(flags=SYN)) == {1, 2}
    mux.load(config(few, service("many", "192.0.2.2", *map(backend, range(1, 22))), **auto))
    assert mux.tables.services[mux.tables.active, :2]["size"].tolist() == [1021, 4093]


def test_a_backend_that_is_down_leaves_the_size_of_an_automatic_table() -> None:
    given = config(service("web", "192.0.2.1", *map(backend, range(1, 12))), maglev={"size": "auto"})
    mux = Mux(given)
    mux.load(effective(given, {("web", f"h{number}") for number in range(3, 12)}, {}))
    assert len(mux.slots()) == 2039 and set(mux.slots().tolist()) == {mux.row(1), mux.row(2)}


def test_automatic_tables_take_a_fraction_of_the_memory() -> None:
    services = [service(f"s{n}", f"192.0.2.{n}", backend(1)) for n in range(1, 200)]
    default, auto = (sizes_for(config(*services, maglev={"size": size})) for size in (65537, "auto"))
    assert auto.slots == Sizes.slots < default.slots / 30


def test_a_changed_service_never_overwrites_slots_in_force() -> None:
    """Packets may be reading them while the new ones are copied, and just after the switch."""
    mux = Mux(THREE)
    for numbers in ((1, 2), (1, 2, 4), (4, 5, 6), (1,), (1, 2, 3, 4)):
        before = mux.tables.services[mux.tables.active, 0].copy()
        held = mux.slots()
        mux.load(config(web(*numbers)))
        assert (mux.tables.slots["backend"][before["slots"] : before["slots"] + before["size"]] == held).all()
        assert {mux.row(number) for number in numbers} == set(mux.slots().tolist())


def test_freed_slots_are_not_used_by_the_next_reload() -> None:
    """Two reloads may come while one batch of packets is under way."""
    mux = Mux(THREE)
    place, held = mux.tables.services[mux.tables.active, 0].copy(), mux.slots()
    mux.load(config(web(4, 5)))
    mux.load(config(web(6, 7)))
    assert (mux.tables.slots["backend"][place["slots"] : place["slots"] + place["size"]] == held).all()


def test_hundred_reloads_find_room() -> None:
    """Ranges of tables that are no longer used are allocated again."""
    mux = Mux(THREE)
    for turn in range(100):
        mux.load(config(web(1 + turn % 9, 1 + (turn + 1) % 9, 1 + (turn + 2) % 9)))
    assert -1 not in mux.send()


def test_the_order_of_backends_does_not_matter() -> None:
    """All muxes have the same table, whatever the order in the file and the rows that backends got."""

    def names(mux: Mux) -> list[str]:
        name_of = {row: name for (_, name), row in mux.control.rows.items()}
        return [name_of[row] for row in mux.slots().tolist()]

    plain, turned = Mux(config(web(1, 2, 3, 4))), Mux(config(web(4, 2, 1, 3)))
    aged = Mux(config(web(9, 3, 8)))
    aged.load(config(web(1, 2, 3, 4)))
    assert names(plain) == names(turned) == names(aged)
    assert plain.send(flags=SYN) == turned.send(flags=SYN) == aged.send(flags=SYN)


def test_a_reload_between_two_packets_keeps_flows() -> None:
    mux = Mux(THREE)
    before = mux.send()
    mux.load(config(web(1, 2, 3, 4, 5)))
    assert mux.send() == before
    assert {4, 5} < set(mux.send(range(1000, 2000), flags=SYN))


def test_another_service_comes_first_and_flows_stay() -> None:
    """Its flows are kept by the service's row, not by its place in the file."""
    mux = Mux(THREE)
    before = mux.send()
    mux.load(config(service("a", "192.0.2.9", backend(9)), web(1, 2, 3, 4, 5)))
    assert mux.send() == before


def test_a_removed_backends_flows_go_to_other_backends() -> None:
    mux = Mux(THREE)
    before, row = mux.send(), mux.row(2)
    mux.load(config(web(1, 3)))
    assert mux.tables.backends[row]["state"] == GONE
    after = mux.send()
    assert 2 not in after
    assert [old for old in before if old != 2] == [new for old, new in zip(before, after, strict=True) if old != 2]
    assert mux.tables.lookups[0][4] == before.count(2)


def test_a_backend_that_comes_back_has_its_row() -> None:
    mux = Mux(THREE)
    row, generation = mux.row(2), mux.tables.backends[mux.row(2)]["generation"].copy()
    mux.load(config(web(1, 3)))
    mux.load(THREE)
    assert (mux.row(2), mux.tables.backends[row]["generation"], mux.tables.backends[row]["state"]) == (
        row, generation, UP,
    )  # fmt: skip
    assert set(mux.send(range(2000, 3000), flags=SYN)) == {1, 2, 3}


def test_weight_zero_drains() -> None:
    """Its flows stay, and it gets no new ones."""
    mux = Mux(THREE)
    before = mux.send()
    drained = config(service("web", "192.0.2.1", backend(1), backend(2, 0), backend(3)))
    mux.load(drained)
    assert mux.tables.backends[mux.row(2)]["state"] == DRAINING
    assert mux.send() == before
    assert 2 in before
    assert set(mux.send(range(1000, 2000), flags=SYN)) == {1, 3}
    mux.load(THREE)
    assert set(mux.send(range(2000, 3000), flags=SYN)) == {1, 2, 3}


def test_a_removed_service_takes_its_backends_along() -> None:
    mux = Mux(config(web(1), service("other", "192.0.2.2", backend(4))))
    mux.send(range(5))
    row = mux.row(1)
    mux.load(config(service("other", "192.0.2.2", backend(4))))
    assert mux.send(range(5)) == [-1] * 5
    assert mux.tables.backends[row]["state"] == GONE
    assert mux.send(range(5), destination=bytes([192, 0, 2, 2])) == [4] * 5


def test_a_service_without_backends_drops_and_counts() -> None:
    mux = Mux(config(web()))
    assert mux.send(range(3)) == [-1] * 3
    assert mux.tables.verdicts[0][Verdict.NO_BACKEND]["packets"] == 3


def test_a_row_that_gets_a_new_owner_gets_a_new_generation() -> None:
    """Otherwise flows of the old owner would go to the new one."""
    mux = Mux(THREE, Sizes(64, services=16, slots=SIZE * 8, backends=4, buckets=32768))
    before = mux.send()
    rows = {mux.row(2), mux.row(3)}
    mux.load(config(web(1, 4)))  # takes the row never used
    mux.load(config(web(1, 4, 5)))  # reuses a row of a removed backend
    assert mux.row(5) in rows
    assert mux.tables.backends[mux.row(5)]["generation"] == 1
    after = mux.send(flags=SYN)
    assert mux.tables.lookups[0][4] == len(before) - before.count(1)
    assert set(after) == {1, 4, 5}


def test_a_backend_with_another_address_or_host_is_another_backend() -> None:
    mux = Mux(THREE)
    row = mux.row(1)
    mux.load(config(service("web", "192.0.2.1", {**backend(1), "dip": "10.1.0.7"}, backend(2), backend(3))))
    assert mux.row(1) != row
    assert mux.tables.backends[row]["state"] == GONE


@pytest.mark.parametrize(
    ("sizes", "table"),
    [
        (Sizes(64, services=2, slots=SIZE * 8, backends=64, buckets=8192), "services"),
        (Sizes(64, services=16, slots=SIZE * 8, backends=4, buckets=8192), "backends"),
        (Sizes(64, services=16, slots=SIZE * 2, backends=64, buckets=8192), "slots"),
        (Sizes(8, services=16, slots=SIZE * 8, backends=64, buckets=8192), "addresses"),
    ],
    ids=["services", "backends", "slots", "addresses"],
)
def test_a_configuration_that_does_not_fit_changes_nothing(sizes: Sizes, table: str) -> None:
    mux = Mux(THREE, sizes)
    mux.send()
    before = {name: memory.copy() for name, memory in mux.tables.memory.items()}
    many = [service(f"s{number}", f"192.0.2.{10 + number}", backend(number)) for number in range(4, 7)]
    with pytest.raises(TableError) as caught:
        mux.control.plan(config(*many))
    assert caught.value.table == table
    assert f"capacity {caught.value.limit}" in str(caught.value)
    assert "; a restart raises the capacity to " in str(caught.value)
    assert caught.value.after_restart >= caught.value.wanted
    assert all((mux.tables.memory[name] == memory).all() for name, memory in before.items())
    assert mux.control.config == THREE


def test_planning_changes_nothing_that_is_in_force() -> None:
    """What a change needs is written ahead: tables where no service has its own, and the copies not in force."""
    mux = Mux(config(web(1, 2, 3, deny=["198.51.100.0/24"])))
    before = {name: memory.copy() for name, memory in mux.tables.memory.items()}
    in_force = table_contents(mux)
    copies = [copy[mux.tables.active].copy() for copy in (mux.tables.services, mux.tables.addresses)]
    more = service("other", "192.0.2.2", backend(1), deny=["203.0.113.0/24"])
    mux.control.plan(config(web(4, 5, 6), more))
    changed = {name for name, memory in before.items() if (mux.tables.memory[name] != memory).any()}
    assert changed == {"slots", "rules", "services", "addresses"}
    assert table_contents(mux) == in_force
    for copy, before_it in zip((mux.tables.services, mux.tables.addresses), copies, strict=True):
        assert (copy[mux.tables.active] == before_it).all()


def test_a_plan_comes_into_force_whole_after_another_one_was_written_ahead() -> None:
    mux = Mux(THREE)
    wanted = config(web(1, 2), service("other", "192.0.2.2", backend(4)))
    plan = mux.control.plan(wanted)
    mux.control.plan(config(service("third", "192.0.2.3", backend(5))))
    mux.control.commit(plan)
    assert table_contents(mux) == table_contents(Mux(wanted))
    mux.hop(4)
    assert set(mux.send(destination=IPv4Address("192.0.2.2").packed)) == {4}
    assert set(mux.send(destination=IPv4Address("192.0.2.3").packed)) == {-1}


LARGEST = Sizes(64, services=1 << 16, slots=SIZE * 8, backends=1 << 16, buckets=8192)


def test_the_last_rows_of_services_and_backends() -> None:
    """Flows and slots have 16 bits for a row: 65,536 services; of the backends' numbers two have another meaning."""
    mux = Mux(config(), LARGEST)
    mux.tables.service_identities[:-1] = mux.tables.backend_identities[: FORMER_TABLE - 3] = 1
    mux.load(THREE)
    assert [mux.row(number) for number in (1, 2, 3)] == [FORMER_TABLE - 3, FORMER_TABLE - 2, FORMER_TABLE - 1]
    assert mux.tables.services[mux.tables.active, -1]["size"] == SIZE
    before = mux.send()
    assert set(before) == {1, 2, 3}
    mux.load(config(web(1, 2)))
    after = mux.send(now=2)
    assert set(after) == {1, 2} and all(one in (new, 3) for one, new in zip(before, after, strict=True))


def test_no_backend_gets_a_row_with_another_meaning() -> None:
    mux = Mux(config(), LARGEST)
    mux.tables.backend_identities[:] = range(1, len(mux.tables.backend_identities) + 1)
    mux.tables.backends["state"][: FORMER_TABLE - 2] = UP
    with pytest.raises(TableError) as caught:
        mux.control.plan(THREE)
    assert (caught.value.table, caught.value.limit) == ("backends", FORMER_TABLE)


def test_until_a_next_hop_is_known_packets_wait_for_it() -> None:
    mux = Mux(THREE)
    mux.control.set_next_hop(IPv4Address("10.1.0.2"), None)
    assert set(mux.send()) == {1, 3, -1}
    assert mux.tables.verdicts[0][Verdict.NO_NEIGHBOUR]["packets"] > 0


def test_a_next_hop_is_set_in_all_rows_of_a_host() -> None:
    shared = {"host": "10.1.0.1"}
    other = service("other", "192.0.2.2", {"dip": "10.9.0.5", **shared})
    mux = Mux(config(web(1), other, service("third", "192.0.2.3")))
    mux.hop(1, destination_mac=0xABCDEF, interface_index=3, mtu=1400, source_mac=0x123456)
    rows = mux.tables.backends[mux.tables.backends["state"] == UP]
    assert len(rows) == 2
    assert set(rows["destination_mac"].tolist()) == {0xABCDEF}
    assert set(rows["source_mac"].tolist()) == {0x123456}
    assert set(rows["interface"].tolist()) == {3}
    assert set(rows["mtu"].tolist()) == {1400}
    assert mux.control.destinations() == {IPv4Address("10.1.0.1")}


def test_an_mtu_beyond_16_bits_is_the_largest() -> None:
    """The loopback interface has one."""
    mux = Mux(THREE)
    mux.hop(1, mtu=65536)
    assert mux.tables.backends[mux.row(1)]["mtu"] == 65535


def test_next_hops_stay_over_a_reload() -> None:
    mux = Mux(THREE)
    mux.hop(1, mtu=1400)
    mux.control.commit(mux.control.plan(config(web(1, 2, 3, 4, 5), service("b", "192.0.2.2", backend(1)))))
    assert mux.tables.backends[mux.row(1)]["mtu"] == 1400
    assert mux.tables.backends[mux.row(1, "b")]["destination_mac"] == MAC + 1
    assert mux.tables.backends[mux.row(5)]["destination_mac"] == MAC + 5  # set before it was configured


def test_a_new_process_on_the_same_tables_keeps_rows_and_flows_and_next_hops() -> None:
    """A mux is restarted while its kernel program keeps forwarding."""
    mux = Mux(config(web(3, 1, 2)))
    before, rows = mux.send(), [mux.row(number) for number in (1, 2, 3)]
    mux.restart()
    mux.control.commit(mux.control.plan(config(web(1, 2, 3), service("b", "192.0.2.2", backend(4)))))
    assert [mux.row(number) for number in (1, 2, 3)] == rows
    assert mux.send() == before
    assert mux.tables.backends[mux.row(4, "b")]["destination_mac"] == 0


def test_a_new_process_does_not_write_over_slots_in_force() -> None:
    mux = Mux(THREE)
    place, held = mux.tables.services[mux.tables.active, 0].copy(), mux.slots()
    mux.restart()
    mux.load(config(web(4, 5)))
    assert (mux.tables.slots["backend"][place["slots"] : place["slots"] + place["size"]] == held).all()


def test_limits_and_times_are_those_of_the_configuration() -> None:
    idle = {"untrusted_s": 5, "tcp_s": 600, "fin_s": 3}
    mux = Mux(config(web(1, idle=idle), flows={"limit": 4096, "trusted_share": 0.5, "untrusted_share": 0.25}))
    settings, row = mux.tables.settings[0], mux.tables.services[mux.tables.active, 0]
    assert (settings["trusted_ways"], settings["untrusted_ways"]) == (2, 1)
    times = (row["idle_untrusted"], row["idle_trusted"], row["idle_closing"])
    assert times == (ticks(5), ticks(600), ticks(3))
    assert ticks(600) == pytest.approx(600e9 / 2**TICK_SHIFT, abs=1)


def test_the_seed_of_the_slot_hash_is_the_configuration_s() -> None:
    one, other = (Mux(config(web(1, 2, 3), maglev={"size": SIZE, "seed": seed})) for seed in (1, 2))
    assert (one.slots() == other.slots()).all()
    assert one.send() != other.send()


@pytest.mark.parametrize("limit", [1024, 1_048_576, 16_777_216])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_flow_table_takes_at_most_64_bytes_a_flow(limit: int, workers: int) -> None:
    sizes = sizes_for(config(web(1), flows={"limit": limit}), workers)
    flows_bytes = sizes.regions()["flows"]
    assert 2 * limit * 32 <= flows_bytes <= 64 * limit + 64
    assert sizes.buckets & (sizes.buckets - 1) == 0


def random_config(random: Random) -> Config:
    """Some of six services, each with some of nine backends, in any order."""
    services = [
        service(
            f"s{number}",
            f"192.0.2.{number}",
            *(
                backend(host, random.choice((0, 1, 3)) if place else 1)
                for place, host in enumerate(random.sample(range(1, 10), random.randint(1, 4)))
            ),
            port=random.choice((80, 443)),
            deny=random.choice(([], ["198.51.100.0/24"], ["203.0.113.0/24", "198.51.100.0/25"])),
            flows=random.choice(("all", "changed")),
        )
        for number in random.sample(range(6), random.randint(1, 6))
    ]
    return config(*services)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_planning_what_differs_gives_what_planning_everything_gives(seed: int) -> None:
    """After each of 30 changes: packets, access lists and Maglev tables are those of a mux that has just started."""
    random = Random(seed)
    mux = Mux(random_config(random))
    for turn in range(30):
        before, after = mux.control.config, random_config(random)
        assert before is not None
        unchanged = {one.name: one for one in before.services if random.random() < 0.7}
        after = after.model_copy(update={"services": tuple(unchanged.get(one.name, one) for one in after.services)})
        mux.load(after)
        mux.control.settle(turn * 1_000_000)
        fresh = Mux(after)
        assert table_contents(mux) == table_contents(fresh)


def table_contents(mux: Mux) -> dict[str, Any]:
    """Maglev tables and backends by name of the service, without rows and places."""
    tables, contents = mux.tables, {}
    active = tables.services[tables.active]
    names = {row: name for (_, name), row in mux.control.rows.items()}
    by_identity = {int(value): row for row, value in enumerate(tables.service_identities) if value}
    assert mux.control.config is not None
    for one in mux.control.config.services:
        index = by_identity[identity(one.vip, one.protocol, one.port)]
        row = active[index]
        backends = {key: tables.backends[at] for key, at in mux.control.rows.items() if key[0] == one.name}
        assert all(at["service"] == index for at in backends.values())
        contents[one.name] = (
            [names[at] for at in mux.slots(index).tolist()],
            tables.rules[row["rules"] :][: row["rule_count"]].tolist(),
            {name: (int(at["state"]), int(at["remote_low"]), int(at["tunnel"])) for (_, name), at in backends.items()},
            [row[name].item() for name in ("tracking", "idle_trusted", "limited", "seed", "hashed", "rejects")],
        )
    assert np.count_nonzero(tables.backends["state"] != GONE) == len(mux.control.rows)
    assert np.count_nonzero(active["hashed"]) == len(contents)
    return contents


def test_a_plan_that_was_overtaken_is_refused() -> None:
    mux = Mux(THREE)
    first, second = mux.control.plan(config(web(1))), mux.control.plan(config(web(2)))
    mux.control.commit(first)
    with pytest.raises(AssertionError, match="another plan"):
        mux.control.commit(second)


def test_a_plan_says_which_share_of_slots_moves() -> None:
    mux = Mux(config(web(1, 2, 3), service("other", "192.0.2.2", backend(4)), service("old", "192.0.2.3", backend(5))))
    before = mux.slots()
    new = config(web(1, 2), service("other", "192.0.2.2", backend(4)), service("new", "192.0.2.4", backend(6)))
    plan = mux.control.plan(new)
    shares = mux.control.slots_moved(plan)
    assert (mux.slots() == before).all()  # nothing is in force
    mux.load(new)
    assert shares == {"web": np.count_nonzero(mux.slots() != before) / SIZE}
    assert mux.control.slots_moved(mux.control.plan(config(web(1, 2), maglev={"size": 499}))) == {"web": 1.0}
    assert mux.control.slots_moved(mux.control.plan(new)) == {}


def test_a_row_that_another_backend_takes_counts_as_moved() -> None:
    mux = Mux(config(web(1)))
    mux.load(config(web(2)))
    assert mux.control.slots_moved(mux.control.plan(config(web(3)))) == {"web": 1.0}


MAIL, NAMES = service("mail", "192.0.2.2", backend(4)), service("names", "192.0.2.3", backend(5))


@pytest.mark.parametrize(
    ("after", "changed"),
    [
        ("web mail names", set()),
        ("names mail web", set()),
        ("mail names", set()),
        ("web names", set()),
        ("new web mail names", {"new"}),
        ("web new names", {"new"}),
        ("names new", {"new"}),
    ],
    ids=["nothing", "another order", "the first is gone", "one between", "a new first", "one replaced", "several"],
)
def test_only_services_that_differ_are_planned(after: str, changed: set[str]) -> None:
    """A reload keeps the objects of unchanged services; a service that is equal is not planned again either."""
    before = config(web(1, 2, 3), MAIL, NAMES)
    mux, equal, new = Mux(before), config(MAIL), config(service("new", "192.0.2.4", backend(6)))
    known = {one.name: one for one in (*before.services, *equal.services, *new.services)}
    wanted = before.model_copy(update={"services": tuple(known[name] for name in after.split())})
    plan = mux.control.plan(wanted)
    assert {name for name, placed in plan.placed.items() if placed.row in plan.identities} == changed
    mux.control.commit(plan)
    assert table_contents(mux) == table_contents(Mux(wanted))
