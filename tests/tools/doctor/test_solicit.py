"""Questions as scapy reads them, and answers as scapy writes them."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from lbmux.addresses import Address
from lbmux.tools.doctor.solicit import first_address, parse_advertisement, parse_arp_reply, request_for

OWN, THEIRS = "02:00:00:00:00:01", "02:00:00:00:00:02"
MAC = bytes.fromhex(OWN.replace(":", ""))
ADDRESS, ADDRESS6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1234:5678")


def test_a_question_by_arp() -> None:
    frame = Ether(request_for(MAC, IPv4Address("10.0.0.1"), ADDRESS)[0])
    assert (frame.dst, frame.src, frame[ARP].op) == ("ff:ff:ff:ff:ff:ff", OWN, 1)
    assert (frame[ARP].psrc, frame[ARP].pdst, frame[ARP].hwsrc) == ("10.0.0.1", str(ADDRESS), OWN)


@pytest.mark.parametrize("asker", ["2001:db8::1", "::"])
def test_a_question_by_neighbour_discovery(asker: str) -> None:
    sent = request_for(MAC, ip_address(asker), ADDRESS6)[0]
    frame = Ether(sent)
    assert (frame.dst, frame.src) == ("33:33:ff:34:56:78", OWN)
    assert (frame[IPv6].src, frame[IPv6].dst, frame[IPv6].hlim) == (asker, "ff02::1:ff34:5678", 255)
    assert frame[ICMPv6ND_NS].tgt == str(ADDRESS6)
    assert frame.haslayer(ICMPv6NDOptSrcLLAddr) == (asker != "::")
    right = frame.copy()
    del right[ICMPv6ND_NS].cksum
    assert bytes(right) == sent


def advertisement(target: str = str(ADDRESS6), hops: int = 255, option: str | None = THEIRS) -> bytes:
    message = ICMPv6ND_NA(tgt=target)
    if option:
        message /= ICMPv6NDOptDstLLAddr(lladdr=option)
    return bytes(Ether(dst=OWN, src="02:00:00:00:00:03") / IPv6(src=target, dst="2001:db8::1", hlim=hops) / message)


def test_the_host_that_advertises_the_address_owns_it() -> None:
    assert parse_advertisement(advertisement(), ADDRESS6) == THEIRS
    assert parse_advertisement(advertisement(option=None), ADDRESS6) == "02:00:00:00:00:03"


@pytest.mark.parametrize(
    "frame",
    [
        advertisement(target="2001:db8::9"),
        advertisement(hops=254),
        request_for(MAC, IPv6Address("2001:db8::1"), ADDRESS6)[0],
        advertisement()[:70],
        b"",
    ],
)
def test_other_frames_are_not_replies(frame: bytes) -> None:
    assert parse_advertisement(frame, ADDRESS6) is None


def test_answers_by_arp() -> None:
    def answer(operation: int = 2, sender: str = str(ADDRESS)) -> bytes:
        return bytes(Ether(dst=OWN, src=THEIRS) / ARP(op=operation, hwsrc=THEIRS, psrc=sender, pdst="10.0.0.1"))

    assert parse_arp_reply(answer(), ADDRESS) == THEIRS
    others = (answer(1), answer(sender="192.0.2.2"), answer()[:30])
    assert [parse_arp_reply(frame, ADDRESS) for frame in others] == [None] * 3


@pytest.mark.parametrize(("version", "address"), [(4, "127.0.0.1"), (6, "::1")])
def test_the_first_address_is_of_the_version_that_is_asked_for(version: int, address: str) -> None:
    unspecified: Address = IPv4Address(0) if version == 4 else IPv6Address(0)
    assert first_address("lo", version) in (ip_address(address), unspecified)
