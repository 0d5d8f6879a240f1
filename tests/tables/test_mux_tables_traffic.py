"""A service's settings, seen in the packets: ports, hash, access, rate, tunnels, former tables."""

import random
import time
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Network

import numpy as np
import pytest

from lbmux.datapath.tables import FLOW_RATE, FORMER_TABLE, NO_BASE, NONE, PACKET_RATE
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import SetupError
from lbmux.tables.mux_rows import price_of
from lbmux.tables.mux_tables import sizes_for
from tests.datapath.craft import ACK, Craft
from tests.datapath.harness import Frames
from tests.tables.test_mux_tables import Mux, backend, config, service, web

ONE_CLIENT, MANY = range(1), range(400)


def backends_of(mux: Mux, **fields: object) -> set[int]:
    """Return the backends that one client's packets from many ports go to."""
    backends: set[int] = set()
    for port in range(1, 60):
        backends |= set(mux.send(ONE_CLIENT, source_port=port, **fields))
    return backends


@pytest.mark.parametrize(
    "hashed, of_client, of_all",
    [("five_fields", 3, 3), ("source", 1, 3), ("source_destination", 1, 3), ("destination_port", 1, 1)],
)
def test_what_is_hashed(hashed: str, of_client: int, of_all: int) -> None:
    mux = Mux(config(web(1, 2, 3, hash=hashed)))
    assert len(backends_of(mux)) == of_client
    assert len(set(mux.send(MANY))) == of_all


def test_affinity_to_the_source_holds_for_two_services_of_equal_backends() -> None:
    """Hashed by the source alone a client has one server behind both VIPs; with the destination it need not."""
    for hashed, same in (("source", True), ("source_destination", False)):
        two = [web(1, 2, 3, hash=hashed), service("web", "192.0.2.2", *map(backend, (1, 2, 3)), hash=hashed)]
        mux = Mux(config(two[0], two[1] | {"name": "other"}))
        first, second = mux.send(MANY), mux.send(MANY, destination=bytes([192, 0, 2, 2]))
        assert (first == second) == same


def test_any_port_and_a_range_and_a_port_of_its_own() -> None:
    anything = service("any", "192.0.2.1", backend(1)) | {"port": "any"}
    some = service("some", "192.0.2.1", backend(2)) | {"port": 1000, "port_to": 1999}
    one = service("one", "192.0.2.1", backend(3), port=443)
    mux = Mux(config(anything, some, one))
    ports = {1: 1, 999: 1, 1000: 2, 1500: 2, 1999: 2, 2000: 1, 443: 3, 65535: 1}
    assert {port: mux.send(ONE_CLIENT, destination_port=port)[0] for port in ports} == ports
    assert mux.send(ONE_CLIENT, protocol=17) == [-1]


def verdicts(mux: Mux, *sources: str) -> list[str]:
    batch = Frames([Craft(source=bytes(map(int, source.split(".")))).frame() for source in sources])
    mux.worker.forward(batch, 1)
    return [verdict.label for verdict, *_ in batch.results()]


def test_a_denied_prefix_and_an_allowed_one_in_it() -> None:
    mux = Mux(config(web(1, deny=["10.0.0.0/8"], allow=[])))
    assert verdicts(mux, "10.1.2.3", "11.1.2.3") == ["denied", "forwarded"]
    mux.load(config(web(1, deny=["10.0.0.0/8"], allow=["10.1.0.0/16"])))
    assert verdicts(mux, "10.1.2.3", "10.2.2.3", "11.1.2.3") == ["forwarded", "denied", "denied"]
    mux.load(config(web(1)))
    assert verdicts(mux, "10.1.2.3", "10.2.2.3") == ["forwarded", "forwarded"]


def test_lists_of_several_services_are_their_own_and_survive_a_reload() -> None:
    services = [
        service(f"s{at}", f"192.0.2.{at}", backend(at), port=80) | {"deny": [f"10.{at}.0.0/16"]} for at in range(1, 6)
    ]
    mux = Mux(config(*services))
    for turn in range(3):
        if turn:
            mux.restart()
            mux.load(config(*services[turn:], services[0]))
        for at in range(turn + 1, 6):
            denied = Frames([Craft(source=bytes([10, at, 0, 1]), destination=bytes([192, 0, 2, at])).frame()])
            other = Frames([Craft(source=bytes([10, 9, 0, 1]), destination=bytes([192, 0, 2, at])).frame()])
            for batch, verdict in ((denied, Verdict.DENIED), (other, Verdict.FORWARDED)):
                mux.worker.forward(batch, 1)
                assert batch.results()[0][0] == verdict


@pytest.mark.slow
def test_a_hundred_thousand_prefixes() -> None:
    pick = random.Random(7)
    nets = {IPv4Network((pick.getrandbits(22) << 10, 22)) for _ in range(100_000)}
    loaded = config(web(1, deny=[str(net) for net in nets]))
    mux = Mux(loaded)
    start = time.monotonic()
    mux.load(loaded)
    print(f"{len(nets)} prefixes loaded again in {time.monotonic() - start:.2f} s")
    addresses = [pick.getrandbits(32) for _ in range(3000)]
    batch = Frames([Craft(source=address.to_bytes(4)).frame() for address in addresses])
    mux.worker.forward(batch, 1)
    denied = [verdict == Verdict.DENIED for verdict, *_ in batch.results()]
    assert denied == [IPv4Network((address >> 10 << 10, 22)) in nets for address in addresses]


def test_limits_of_a_service_become_prices_and_each_backend_has_its_weight_s_share() -> None:
    weights = {"backends": [backend(1) | {"weight": 3}, backend(2), backend(3) | {"weight": 0}]}
    mux = Mux(config(web(1, new_flows_per_s=1000, packets_per_s=1_000_000) | weights))
    second = 1e9 / 2**20 * 2**22  # in the unit of prices
    kinds = mux.tables.service_rates["price"][:, 0] / second
    assert kinds[[PACKET_RATE, FLOW_RATE]].tolist() == pytest.approx([1e-6, 1e-3], rel=1e-3)
    shares = {name: mux.tables.backend_rates["price"][row] / second for (_, name), row in mux.control.rows.items()}
    assert shares == pytest.approx({"h1": 1 / 750, "h2": 1 / 250, "h3": 0}, rel=1e-3)
    mux.load(config(web(1)))
    assert not mux.tables.services[mux.tables.active, 0]["limited"]


def test_the_lowest_limit_is_one_a_second() -> None:
    assert price_of(1) == price_of(1.0) < 1 << 32
    assert price_of(0.01) == (1 << 32) - 1
    assert price_of(None) == price_of(0) == 0


@pytest.mark.parametrize("kind", ["ipip", "gre", "direct"])
def test_the_tunnel_of_a_backend_beats_the_service_s_and_the_file_s(kind: str) -> None:
    tunnelled = web(1, tunnel="gue1") | {"backends": [backend(1) | {"tunnel": kind}, backend(2)]}
    mux = Mux(config(tunnelled, tunnel={"kind": "geneve"}))
    rooms = {"ipip": 20, "gre": 24, "direct": 0}
    assert int(mux.tables.backends[mux.row(1)]["overhead_bytes"]) == rooms[kind]
    assert int(mux.tables.backends[mux.row(2)]["overhead_bytes"]) == 28


def test_without_an_own_address_of_the_host_s_family_the_plan_is_refused() -> None:
    mux = Mux(config(web(1)))
    of_ipv6 = service("six", "2001:db8::1", {"dip": "2001:db8:1::2"})
    with pytest.raises(SetupError, match="no own IPv6 address for packets to 2001:db8:1::2"):
        mux.control.plan(config(of_ipv6))
    assert mux.send(ONE_CLIENT) == [1]


def bases(mux: Mux) -> Counter[tuple[int, int | str]]:
    """Count the slots by the numbers of their backend and their base."""
    number = {row: int(name.removeprefix("h")) for (_, name), row in mux.control.rows.items()}
    special: dict[int, int | str] = {NO_BASE: "exceptions", FORMER_TABLE: "former"}
    pairs = mux.control.slots.pairs(0)
    return Counter((number[backend], special.get(base) or number.get(base, "gone")) for backend, base in pairs.tolist())


def test_a_fresh_table_is_steady() -> None:
    assert set(bases(Mux(config(web(1, 2))))) == {(1, 1), (2, 2)}


def test_changed_slots_keep_the_first_backend_as_their_base() -> None:
    mux = Mux(config(web(1, 2)))
    before = mux.control.slots.pairs(0)["backend"].copy()
    mux.load(config(web(1, 2, 3)))
    assert (mux.control.slots.pairs(0)["base"] == before).all()
    mux.load(config(web(1, 2, 3), service("other", "192.0.2.2", backend(4))))
    assert (mux.control.slots.pairs(0)["base"] == before).all(), "another service's change leaves them"
    changed = mux.control.slots.pairs(0)["backend"] != before
    mux.load(config(web(1, 2, 3, 4)))
    after = mux.control.slots.pairs(0)
    assert (
        after["base"][changed & (after["backend"] != before)] == before[changed & (after["backend"] != before)]
    ).all()


def test_slots_that_get_their_base_back_have_exceptions() -> None:
    mux = Mux(config(web(1, 2)))
    before = mux.control.slots.pairs(0)["backend"].copy()
    mux.load(config(web(1, 2, 3)))
    changed = mux.control.slots.pairs(0)["backend"] != before
    mux.load(config(web(1, 2) | {"backends": [backend(1), backend(2), backend(3, weight=0)]}))
    after = mux.control.slots.pairs(0)
    assert (after["backend"] == before).all()
    assert (after["base"] == np.where(changed, NO_BASE, before)).all()


def test_a_removed_backend_is_not_a_base() -> None:
    """Its flows end with it, so its slots are steady at once."""
    mux = Mux(config(web(1, 2, 3)))
    mux.load(config(web(1, 2)))
    assert all(number == base for number, base in bases(mux)) or set(bases(mux)) <= {(1, 1), (2, 2), (1, 2), (2, 1)}
    mux.load(config(web(1)))
    assert {base for _, base in bases(mux)} <= {1, "exceptions"}


def test_after_a_change_of_size_the_former_table_has_the_bases() -> None:
    mux = Mux(config(web(1, 2)))
    before = mux.control.slots.pairs(0).copy()
    mux.load(config(web(1, 2, 3), maglev={"size": 509}))
    assert {base for _, base in bases(mux)} == {"former"}
    row = mux.tables.services[mux.tables.active, 0]
    kept = mux.tables.slots[row["former"] : row["former"] + row["former_size"]]
    assert (kept == before).all()
    mux.load(config(web(1, 2), maglev={"size": 509}))
    row = mux.tables.services[mux.tables.active, 0]
    assert (mux.tables.slots[row["former"] : row["former"] + row["former_size"]] == before).all()


def test_where_there_is_no_room_for_it_the_former_table_is_given_up() -> None:
    loaded = config(web(1, 2), maglev={"size": 509})
    mux = Mux(loaded, replace(sizes_for(loaded), slots=509 + 2 * 251 + 100))
    for numbers in ((1, 2, 3), (1, 2, 3, 4)):
        mux.load(config(web(*numbers)))
        assert mux.tables.services[mux.tables.active, 0]["former"] == 0
    mux.load(config(web(1, 2, 3, 4, 5)))
    assert mux.tables.services[mux.tables.active, 0]["former"] == NONE
    assert set(mux.send(range(300), flags=ACK)) == {1, 2, 3, 4, 5}
