"""Bad inputs by name, with the mux's verdict for each. The frame never changes, and no byte after its end is read."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from lbmux.datapath.verdicts import Verdict
from lbmux.targets.native import Worker
from tests.datapath.craft import ETHERNET, Craft, tag
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_mux import Backend, Service
from tests.datapath.plain_packet import TCP, UDP, Packet, decrement_ttl, parse

VIP = Craft().destination
GOOD, GOOD_UDP = Craft(), Craft(protocol=UDP, destination_port=53)
VIP6 = IPv6Address("2001:db8::1").packed
GOOD6 = Craft(source=IPv6Address("2001:db8:1::7").packed, destination=VIP6)
FULL = Craft(payload=bytes(range(100)))

CASES: dict[str, tuple[bytes, Verdict]] = {
    "nothing at all": (b"", Verdict.TRUNCATED),
    "half an Ethernet header": (ETHERNET[:7], Verdict.TRUNCATED),
    "Ethernet header without its type": (ETHERNET, Verdict.TRUNCATED),
    "Ethernet header alone": (GOOD.frame()[:14], Verdict.TRUNCATED),
    "IPv4 header cut after one byte": (GOOD.frame()[:15], Verdict.TRUNCATED),
    "IPv4 header cut before its last byte": (GOOD.frame()[:33], Verdict.TRUNCATED),
    "IPv4 header alone, which claims more": (GOOD.frame()[:34], Verdict.MALFORMED),
    "IPv4 header alone, honest": (Craft(length=20).frame()[:34], Verdict.MALFORMED),
    "TCP header cut": (GOOD.frame()[:53], Verdict.MALFORMED),
    "TCP header cut, honest": (Craft(length=39).frame()[:53], Verdict.MALFORMED),
    "TCP ports alone, honest": (Craft(length=24).frame()[:38], Verdict.MALFORMED),
    "UDP header cut": (GOOD_UDP.frame()[:41], Verdict.MALFORMED),
    "UDP header cut, honest": (Craft(protocol=UDP, length=27).frame()[:41], Verdict.MALFORMED),
    "payload cut": (FULL.frame()[:-1], Verdict.MALFORMED),
    "length zero, as a super-frame has": (Craft(length=0).frame(), Verdict.MALFORMED),
    "length below its own header": (Craft(length=19).frame(), Verdict.MALFORMED),
    "length without room for TCP": (Craft(length=39).frame(), Verdict.MALFORMED),
    "length one too many": (Craft(length=41).frame(), Verdict.MALFORMED),
    "length of 65535": (Craft(length=65535).frame(), Verdict.MALFORMED),
    "version 0": (Craft(version_ihl=0x05).frame(), Verdict.MALFORMED),
    "version 6 in an IPv4 frame": (Craft(version_ihl=0x60).frame(), Verdict.MALFORMED),
    "header of 0 words": (Craft(version_ihl=0x40).frame(), Verdict.MALFORMED),
    "header of 4 words": (Craft(version_ihl=0x44).frame(), Verdict.MALFORMED),
    "options that are not there": (Craft(version_ihl=0x4F).frame(), Verdict.TRUNCATED),
    "options longer than the packet": (Craft(version_ihl=0x4A, padding=bytes(9)).frame(), Verdict.MALFORMED),
    "first fragment": (Craft(fragment=0x2000).frame(), Verdict.FRAGMENT),
    "last fragment": (Craft(fragment=0x00B9).frame(), Verdict.FRAGMENT),
    "fragment that says do not fragment": (Craft(fragment=0x6000).frame(), Verdict.FRAGMENT),
    "ping": (Craft(protocol=1, payload=b"\x08\0" + bytes(6)).frame(), Verdict.ICMP),
    "GRE": (Craft(protocol=47, payload=bytes(40)).frame(), Verdict.PROTOCOL),
    "SCTP": (Craft(protocol=132, payload=bytes(40)).frame(), Verdict.PROTOCOL),
    "IPIP": (Craft(protocol=4, payload=GOOD.packet()).frame(), Verdict.PROTOCOL),
    "ARP": (Craft(type=0x0806).frame(), Verdict.NOT_IP),
    "IPv4 with the type of IPv6": (Craft(type=0x86DD).frame(), Verdict.MALFORMED),
    "802.3 length for a type": (Craft(type=0x0026).frame(), Verdict.NOT_IP),
    "three VLAN tags": (Craft(tags=tag(1) * 3).frame(), Verdict.VLAN),
    "VLAN tag cut": (Craft(tags=tag(1)).frame()[:17], Verdict.TRUNCATED),
    "VLAN tag and no IP": (Craft(tags=tag(1), type=0x0806).frame(), Verdict.NOT_IP),
    "IPv6 header cut": (GOOD6.frame()[:53], Verdict.TRUNCATED),
    "IPv6 header alone, which claims more": (GOOD6.frame()[:54], Verdict.MALFORMED),
    "IPv6 of version 4": (replace(GOOD6, version_ihl=0x45).frame(), Verdict.MALFORMED),
    "IPv6 length one too many": (replace(GOOD6, length=21).frame(), Verdict.MALFORMED),
    "IPv6 jumbogram": (replace(GOOD6, length=0).frame(), Verdict.MALFORMED),
    "IPv6 without room for TCP": (replace(GOOD6, length=19).frame(), Verdict.MALFORMED),
    "IPv6 first fragment": (replace(GOOD6, extensions=((44, b"\0\0\x01" + bytes(4)),)).frame(), Verdict.FRAGMENT),
    "IPv6 last fragment": (replace(GOOD6, extensions=((44, b"\0\0\x10" + bytes(4)),)).frame(), Verdict.FRAGMENT),
    "IPv6 nine extension headers": (replace(GOOD6, extensions=((60, bytes(7)),) * 9).frame(), Verdict.OPTIONS),
    "IPv6 extension header beyond the packet": (
        replace(GOOD6, extensions=((60, b"\x10" + bytes(6)),)).frame(),
        Verdict.MALFORMED,
    ),
    "IPv6 ping": (replace(GOOD6, protocol=58, payload=b"\x80\0" + bytes(6)).frame(), Verdict.ICMP),
    "IPv6 with ICMP for IPv4": (replace(GOOD6, protocol=1, payload=bytes(8)).frame(), Verdict.PROTOCOL),
    "IPv6 with no next header": (replace(GOOD6, protocol=59, payload=b"").frame(), Verdict.PROTOCOL),
    "IPv6 to another address": (replace(GOOD6, destination=VIP6[:-1] + b"\x09").frame(), Verdict.NOT_VIP),
    "IPv4 with the VIP as a mapped IPv6 address": (
        replace(GOOD6, destination=bytes(10) + b"\xff\xff\xc0\0\x02\x09").frame(),
        Verdict.NOT_VIP,
    ),
    "time to live of 1": (Craft(ttl=1).frame(), Verdict.TTL),
    "time to live of 0": (Craft(ttl=0).frame(), Verdict.TTL),
    "hop limit of 1": (replace(GOOD6, ttl=1).frame(), Verdict.TTL),
    "zeros": (bytes(60), Verdict.NOT_IP),
    "ones": (b"\xff" * 60, Verdict.NOT_IP),
    "junk behind an Ethernet header": (GOOD.frame()[:14] + bytes(range(200, 255)), Verdict.MALFORMED),
    "another address": (Craft(destination=bytes([192, 0, 2, 2])).frame(), Verdict.NOT_VIP),
    "another port": (Craft(destination_port=81).frame(), Verdict.NOT_VIP),
    "the port in the other byte order": (Craft(destination_port=80 << 8).frame(), Verdict.NOT_VIP),
    "another protocol": (Craft(protocol=UDP).frame(), Verdict.NOT_VIP),
}

PASSED_ON = {
    "wrong IPv4 checksum": Craft(header_check="wrong"),
    "zero IPv4 checksum": Craft(header_check="zero"),
    "wrong TCP checksum": Craft(check="wrong"),
    "zero TCP checksum": Craft(check="zero"),
    "zero UDP checksum": Craft(protocol=UDP, destination_port=53, check="zero"),
    "wrong UDP checksum": Craft(protocol=UDP, destination_port=53, check="wrong"),
    "record route option": Craft(options=b"\x07\x07\x04" + bytes(5)),
    "options of the longest kind": Craft(options=bytes(40)),
    "IPv6": GOOD6,
    "IPv6 hop-by-hop options": replace(GOOD6, extensions=((0, bytes(7)),)),
    "IPv6 routing header": replace(GOOD6, extensions=((43, b"\x02" + bytes(22)),)),
    "IPv6 authentication header": replace(GOOD6, extensions=((51, b"\x04" + bytes(22)),)),
    "IPv6 eight extension headers": replace(GOOD6, extensions=((60, bytes(7)),) * 8),
    "IPv6 atomic fragment": replace(GOOD6, extensions=((44, bytes(7)),)),
    "padding": Craft(padding=bytes(6)),
    "evil bit": Craft(fragment=0x8000),
    "all TCP flags": Craft(flags=0xFF),
    "no TCP flags": Craft(flags=0),
    "source is the VIP": Craft(source=VIP),
    "source port 0": Craft(source_port=0),
}


def mux() -> Machine:
    machine = Machine.make(16)
    services = [Service(VIP, TCP, 80, (0,)), Service(VIP, UDP, 53, (0,)), Service(VIP6, TCP, 80, (0,))]
    machine.install_mux(services, [Backend(bytes([10, 1, 0, 1]))])
    return machine


@pytest.mark.parametrize("case", CASES)
def test_passes_to_the_kernel_unchanged_and_is_counted(case: str) -> None:
    frame, verdict = CASES[case]
    machine, batch = mux(), Frames([frame])
    machine.worker.forward(batch, 1)
    assert batch.results() == [(verdict, -1, frame)]
    assert machine.verdicts() == {verdict: (1, len(frame))}
    assert batch.untouched_around()
    assert verdict.kind == "pass"
    assert not (machine.tables.flows["state"] != 0).any()


@pytest.mark.parametrize("case", PASSED_ON)
def test_payload_faults_are_left_to_the_host(case: str) -> None:
    """The inner packet stays as it was, byte for byte, except that its TTL is decremented."""
    frame = PASSED_ON[case].frame()
    packet = parse(frame)
    assert isinstance(packet, Packet)
    batch = Frames([frame])
    mux().worker.forward(batch, 1)
    ((verdict, _, after),) = batch.results()
    assert verdict == Verdict.FORWARDED
    assert after[34:] == decrement_ttl(frame, packet)[14:]


FOR_USER_SPACE = {
    "a VLAN tag": (Craft(tags=tag(7)), Verdict.VLAN),
    "a service tag": (Craft(tags=tag(7, 0x88A8)), Verdict.VLAN),
    "IPv4 options": (Craft(options=bytes(4)), Verdict.OPTIONS),
    "IPv6 extension headers": (replace(GOOD6, extensions=((0, bytes(7)),)), Verdict.OPTIONS),
    "an IPv6 fragment header": (replace(GOOD6, extensions=((44, bytes(7)),)), Verdict.FRAGMENT),
}


@pytest.mark.parametrize("case", FOR_USER_SPACE)
def test_the_kernel_punts(case: str) -> None:
    """The same mux in user space forwards it."""
    craft, verdict = FOR_USER_SPACE[case]
    machine, batch, again = mux(), Frames([craft.frame()]), Frames([craft.frame()])
    Worker(machine.tables, plain=True).forward(batch, 1)
    assert batch.results() == [(verdict, -1, craft.frame())]
    machine.worker.forward(again, 1)
    assert again.results()[0][0] == Verdict.FORWARDED


@pytest.mark.parametrize("tags", [tag(7), tag(9, 0x88A8) + tag(7)], ids=["802.1Q", "QinQ"])
def test_vlan_tags_stay_on_the_way_out(tags: bytes) -> None:
    batch = Frames([Craft(tags=tags).frame()])
    mux().worker.forward(batch, 1)
    ((verdict, _, after),) = batch.results()
    assert verdict == Verdict.FORWARDED
    assert after[12 : 12 + len(tags) + 4] == tags + b"\x08\0\x45\0"
    assert batch.untouched_around()


def test_every_truncation_of_a_good_frame() -> None:
    frame = FULL.frame()
    cut = [frame[:length] for length in range(len(frame))]
    batch = Frames(cut)
    mux().worker.forward(batch, 1)
    expected = [Verdict.TRUNCATED] * 34 + [Verdict.MALFORMED] * (len(frame) - 34)
    assert batch.results() == [(verdict, -1, left) for verdict, left in zip(expected, cut, strict=True)]
