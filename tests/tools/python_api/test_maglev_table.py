"""`lbmux.Maglev`: the mux's own tables and hashes, and clear errors."""

import numpy as np
import pytest

import lbmux
from lbmux.tables import maglev

NAMES = [f"b{number}" for number in range(5)]
FLOWS = [
    f"198.51.100.7:{port} > 192.0.2.1:80/{protocol}" for port in range(40000, 40040) for protocol in ("tcp", "udp")
]
FLOWS6 = [f"[2001:db8::7]:{port} > [2001:db8::1]:443/tcp" for port in range(40000, 40040)]


def config(vip: str, protocol: str, port: int) -> dict[str, object]:
    wide = ":" in vip
    backends = [{"name": name, "dip": f"fd00::{at + 5}" if wide else f"10.1.{at}.2"} for at, name in enumerate(NAMES)]
    service = {"name": "web", "vip": vip, "protocol": protocol, "port": port, "backends": backends}
    return {"maglev": {"size": 251, "seed": 7}, "services": [service]}


def test_the_table_is_what_a_mux_builds() -> None:
    table = lbmux.Maglev(NAMES, [3, 1, 4, 1, 5], 1009)
    assert (table.table == maglev.build(NAMES, [3, 1, 4, 1, 5], 1009)).all()
    assert table.slots() == dict(zip(NAMES, np.bincount(table.table).tolist(), strict=True))


@pytest.mark.parametrize(
    ("flows", "vip", "protocol", "port"),
    [(FLOWS[::2], "192.0.2.1", "tcp", 80), (FLOWS[1::2], "192.0.2.1", "udp", 80), (FLOWS6, "2001:db8::1", "tcp", 443)],
    ids=["tcp", "udp", "IPv6"],
)
def test_a_flow_has_the_backend_that_a_mux_picks(flows: list[str], vip: str, protocol: str, port: int) -> None:
    from lbmux.tools.packet_text import ClientPacket

    table, mux = lbmux.Maglev(NAMES, size=251, seed=7), lbmux.Mux(config(vip, protocol, port))
    picked = {flow: mux.forward(ClientPacket.parse(flow, opens=True).frame()).backend for flow in flows}
    assert picked == {flow: table.backend_of(flow) for flow in flows}
    assert len(set(picked.values())) > 2


def test_a_hash_picks_the_slot_in_proportion() -> None:
    table = lbmux.Maglev(NAMES, size=251)
    assert (table.slot_of(0), table.slot_of((1 << 32) - 1), table.slot_of(1 << 31)) == (0, 250, 125)
    assert table.backend_of(1 << 31) == table.owners()[125] == NAMES[table.table[125]]


def test_disruption_compares_names_not_numbers() -> None:
    whole, shuffled = lbmux.Maglev(NAMES, size=251), lbmux.Maglev(NAMES[::-1], size=251)
    assert lbmux.disruption(whole, shuffled) == 0
    assert 0.2 <= lbmux.disruption(whole, lbmux.Maglev(NAMES[1:], size=251)) < 0.4


@pytest.mark.parametrize("other", [lbmux.Maglev(NAMES, size=257), lbmux.Maglev(NAMES, size=251, seed=2)])
def test_tables_that_cannot_be_compared(other: lbmux.Maglev) -> None:
    with pytest.raises(ValueError, match="same size and seed"):
        lbmux.disruption(lbmux.Maglev(NAMES, size=251), other)


@pytest.mark.parametrize(
    ("names", "weights", "size", "why"),
    [
        (["a", "a"], None, 251, "differ"),
        (["a", "b"], [1], 251, "1 weights for 2 names"),
        (["a"], [70000], 251, "0 to 65535"),
        (["a"], [0], 251, "no backend has a weight"),
        (["a", "b"], None, 2, "too few"),
        (["a"], None, 252, "not a prime"),
    ],
)
def test_what_cannot_be_built(names: list[str], weights: list[int] | None, size: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        lbmux.Maglev(names, weights, size)


def test_look_ups_that_have_no_slot() -> None:
    table = lbmux.Maglev(NAMES, size=251)
    with pytest.raises(ValueError, match="32-bit"):
        table.backend_of(1 << 32)
    with pytest.raises(lbmux.LbmuxError, match="SRC:PORT"):
        table.backend_of("198.51.100.7")


def test_the_table_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        lbmux.Maglev(NAMES, size=251).table[0] = 1
