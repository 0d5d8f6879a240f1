"""Bad inputs by name: what a mux says of each.  The frame is never changed and nothing behind its end is looked at."""

import pytest

from lbmux.datapath.verdicts import Verdict
from lbmux.datapath.world import TAGGED

from .craft import ETHERNET, Craft
from .harness import Frames, Machine
from .plain_mux import Backend, Service
from .plain_packet import TCP, UDP

VIP = Craft().destination
GOOD, GOOD_UDP = Craft(), Craft(protocol=UDP, destination_port=53)
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
    "record route option": (Craft(options=b"\x07\x07\x04" + bytes(5)).frame(), Verdict.OPTIONS),
    "options of the longest kind": (Craft(options=bytes(40)).frame(), Verdict.OPTIONS),
    "options that are not there": (Craft(version_ihl=0x4F).frame(), Verdict.OPTIONS),
    "first fragment": (Craft(fragment=0x2000).frame(), Verdict.FRAGMENT),
    "last fragment": (Craft(fragment=0x00B9).frame(), Verdict.FRAGMENT),
    "fragment that says do not fragment": (Craft(fragment=0x6000).frame(), Verdict.FRAGMENT),
    "ping": (Craft(protocol=1, payload=b"\x08\0" + bytes(6)).frame(), Verdict.ICMP),
    "GRE": (Craft(protocol=47, payload=bytes(40)).frame(), Verdict.PROTOCOL),
    "SCTP": (Craft(protocol=132, payload=bytes(40)).frame(), Verdict.PROTOCOL),
    "IPIP": (Craft(protocol=4, payload=GOOD.packet()).frame(), Verdict.PROTOCOL),
    "ARP": (Craft(type=0x0806).frame(), Verdict.NOT_IP),
    "IPv6": (Craft(type=0x86DD).frame(), Verdict.NOT_IP),
    "802.3 length for a type": (Craft(type=0x0026).frame(), Verdict.NOT_IP),
    "802.1Q tag": (Craft(type=0x8100).frame(), Verdict.VLAN),
    "802.1ad tag": (Craft(type=0x88A8).frame(), Verdict.VLAN),
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
    "time to live of 0": Craft(ttl=0),
    "padding": Craft(padding=bytes(6)),
    "evil bit": Craft(fragment=0x8000),
    "all TCP flags": Craft(flags=0xFF),
    "no TCP flags": Craft(flags=0),
    "source is the VIP": Craft(source=VIP),
    "source port 0": Craft(source_port=0),
}


def mux() -> Machine:
    machine = Machine.make(16)
    machine.install_mux([Service(VIP, TCP, 80, (0,)), Service(VIP, UDP, 53, (0,))], [Backend(bytes([10, 1, 0, 1]))])
    return machine


@pytest.mark.parametrize("case", CASES)
def test_is_left_alone_and_counted(case: str) -> None:
    frame, verdict = CASES[case]
    machine, batch = mux(), Frames([frame])
    machine.worker.forward(batch, 1)
    assert batch.results() == [(verdict, -1, frame)]
    assert machine.verdicts() == {verdict: (1, len(frame))}
    assert batch.untouched_around()
    assert verdict.kind == "pass"
    assert not (machine.tables.flows["state"] != 0).any()


@pytest.mark.parametrize("case", PASSED_ON)
def test_is_the_hosts_to_judge(case: str) -> None:
    """The inner packet goes on as it came, byte for byte."""
    frame = PASSED_ON[case].frame()
    batch = Frames([frame])
    mux().worker.forward(batch, 1)
    ((verdict, _, after),) = batch.results()
    assert verdict == Verdict.FORWARDED
    assert after[34:] == frame[14:]


def test_every_truncation_of_a_good_frame() -> None:
    frame = FULL.frame()
    cut = [frame[:length] for length in range(len(frame))]
    batch = Frames(cut)
    mux().worker.forward(batch, 1)
    expected = [Verdict.TRUNCATED] * 34 + [Verdict.MALFORMED] * (len(frame) - 34)
    assert batch.results() == [(verdict, -1, left) for verdict, left in zip(expected, cut, strict=True)]


def test_a_tag_that_the_kernel_took_off_counts() -> None:
    batch = Frames([GOOD.frame()], [TAGGED])
    mux().worker.forward(batch, 1)
    assert batch.results() == [(Verdict.VLAN, -1, GOOD.frame())]
