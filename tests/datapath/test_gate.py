"""The gate: what it counts by VIP, and what it drops.  In the kernel: tests/targets/bpf/test_gate_program.py."""

import random
from math import log
from typing import Any

import numpy as np
import pytest

from lbmux.datapath.tables import SOURCE_BITS, SOURCE_BITS_AT, VIP_USAGE
from lbmux.datapath.verdicts import Verdict
from tests.datapath.craft import ACK, SYN, Craft
from tests.datapath.harness import Frames
from tests.datapath.plain_gate import PlainUsage
from tests.datapath.plain_packet import UDP
from tests.tables.test_mux_tables import Mux, backend, config, service

VIPS = {"192.0.2.1": bytes([192, 0, 2, 1]), "192.0.2.2": bytes([192, 0, 2, 2])}
VIP6 = bytes.fromhex("20010db8019200000000000000000009")
ICMP = 1
NOW = 5000


def gated(*more: dict[str, Any]) -> Mux:
    mux = Mux(config(*(service(f"s{n}", vip, backend(n + 1)) for n, vip in enumerate(VIPS)), *more))
    mux.tables.settings[0]["gated"] = 1
    return mux


def usage(mux: Mux, vip: str) -> np.void:
    found: np.void = mux.tables.vips[{str(one): row for one, row in mux.control.vips.items()}[vip]]
    return found


def pass_through(mux: Mux, *crafts: Craft, now: int = NOW) -> list[int]:
    batch = Frames([craft.frame() for craft in crafts])
    mux.worker.forward(batch, now)
    return [verdict for verdict, *_ in batch.results()]


def random_craft(rng: random.Random) -> Craft:
    kind = rng.choice(["tcp", "tcp", "udp", "icmp", "fragment", "options"])
    fields = {
        "tcp": {"flags": rng.choice([SYN, ACK, SYN | ACK])}, "udp": {"protocol": UDP, "payload": b"0123456789ab"},
        "icmp": {"protocol": ICMP, "payload": bytes(8)}, "fragment": {"fragment": 0x2000}, 
        "options": {"options": bytes(4)},
    }[kind]  # fmt: skip
    source, port = rng.randrange(400).to_bytes(4), rng.choice([80, 81])
    return Craft(source=source, destination=VIPS["192.0.2.1"], source_port=40000, destination_port=port, **fields)  # type: ignore[arg-type]


def test_the_gate_counts_what_its_twin_counts() -> None:
    mux, plain, rng = gated(), PlainUsage(), random.Random(1)
    crafts = [random_craft(rng) for _ in range(4000)]
    pass_through(mux, *crafts)
    for craft in crafts:
        plain.take(craft, False)
    found = usage(mux, "192.0.2.1")
    assert [found[name] for name in ("packets", "begins", "dropped")] == [plain.packets, plain.begins, 0]
    assert found["judged"] == pytest.approx(plain.judged / 16, rel=0.5), "a sixteenth of the flows is judged"
    assert found["follows"] / found["judged"] == pytest.approx(plain.follows / plain.judged, abs=0.1)
    assert found["begun"] == pytest.approx(plain.begun / 16, rel=0.8)
    assert 0 < found["completed"] <= found["begun"] and plain.completed > plain.begun / 4
    assert not usage(mux, "192.0.2.2")["packets"]


def test_the_bitmap_tells_how_many_sources_there_were() -> None:
    mux = gated()
    pass_through(mux, *(Craft(source=n.to_bytes(4)) for n in range(200) for _ in range(3)))
    bits = usage(mux, "192.0.2.1").tobytes()[SOURCE_BITS_AT : VIP_USAGE.itemsize]
    unset = SOURCE_BITS - int.from_bytes(bits).bit_count()
    assert SOURCE_BITS * log(SOURCE_BITS / unset) == pytest.approx(200, rel=0.2)


@pytest.mark.parametrize(
    "craft",
    [
        Craft(), Craft(flags=SYN), Craft(protocol=UDP, payload=bytes(20)), Craft(protocol=ICMP, payload=bytes(8)),
        Craft(fragment=0x2000), Craft(fragment=1), Craft(options=bytes(4)), Craft(destination_port=9),
        Craft(tags=bytes.fromhex("81000001")),
    ],
    ids=["TCP", "SYN", "UDP", "ICMP", "first fragment", "fragment", "options", "other port", "VLAN"],
)  # fmt: skip
def test_every_packet_to_a_black_hole_is_dropped_and_counted(craft: Craft) -> None:
    mux = gated()
    usage(mux, "192.0.2.1")["until"] = NOW + 10
    assert pass_through(mux, craft) == [Verdict.BLACK_HOLED]
    assert mux.tables.verdicts["packets"][:, Verdict.BLACK_HOLED].sum() == 1
    assert (usage(mux, "192.0.2.1")["packets"], usage(mux, "192.0.2.1")["dropped"]) == (1, 1)
    assert pass_through(mux, Craft(destination=VIPS["192.0.2.2"])) == [Verdict.FORWARDED]
    assert pass_through(mux, craft, now=NOW + 11) != [Verdict.BLACK_HOLED], "its time is over"
    mux.tables.settings[0]["gated"] = 0
    assert pass_through(mux, craft) != [Verdict.BLACK_HOLED], "the gate is closed"


def test_ipv6_packets_too() -> None:
    there = {"name": "h6", "dip": "2001:db8:1::2", "host": "10.1.0.3", "port": 8080}
    mux = gated(service("v6", "2001:db8:192::9", there))
    craft = Craft(source=bytes(15) + b"1", destination=VIP6, flags=SYN)
    pass_through(mux, craft, craft)
    assert usage(mux, "2001:db8:192::9")["begins"] == 2
    usage(mux, "2001:db8:192::9")["until"] = NOW + 10
    assert pass_through(mux, craft) == [Verdict.BLACK_HOLED]


def test_a_frame_that_ends_within_its_header_passes_the_gate() -> None:
    mux = gated()
    usage(mux, "192.0.2.1")["until"] = NOW + 10
    batch = Frames([Craft().frame()[:length] for length in (0, 13, 14, 33)])
    mux.worker.forward(batch, NOW)
    assert Verdict.BLACK_HOLED not in [verdict for verdict, *_ in batch.results()]
