"""Frames from scapy expressions: what is built, and everything that is refused."""

import socket
import subprocess
import sys
from itertools import islice

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from lbmux.tools import craft as module
from lbmux.tools.craft import CraftError, craft


def test_a_bare_ip_packet_gets_an_ethernet_header() -> None:
    (frame,) = craft(['IP(dst="192.0.2.1")/TCP(dport=80)/"hello"'])
    ethernet = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
    assert frame == bytes(Ether(**ethernet) / IP(src="198.51.100.1", dst="192.0.2.1") / TCP(dport=80) / b"hello")


def test_given_fields_are_kept() -> None:
    expression = 'Ether(src="02:00:00:00:00:09")/Dot1Q(vlan=7)/IPv6(src="2001:db8::1",dst="2001:db8::2")/UDP()'
    (frame,) = craft([expression])
    read = Ether(frame)
    assert (read.src, read.dst, read.vlan) == ("02:00:00:00:00:09", "02:00:00:00:00:02", 7)
    assert read[IPv6].src == "2001:db8::1"


def test_ranges_prefixes_and_lists_give_several_packets() -> None:
    frames = [Ether(frame) for frame in craft(['IP(dst="192.0.2.0/31")/TCP(sport=(1000,1002),dport=[80,443])'])]
    ends = {(frame[IP].dst, frame[TCP].sport, frame[TCP].dport) for frame in frames}
    assert len(frames) == len(ends) == 2 * 3 * 2


def test_options_and_nested_layers() -> None:
    options = 'IP(dst="192.0.2.1",options=[IPOption_Router_Alert()])/TCP(flags="SA",options=[("MSS",1460)])'
    read = Ether(next(craft([options])))
    assert read[TCP].options[0] == ("MSS", 1460) and len(read[IP].options) == 1
    tunnel = Ether(next(craft(['IP(dst="10.0.0.2")/IP(dst="192.0.2.1")/TCP()'])))
    assert tunnel[IP].payload.dst == "192.0.2.1"


def test_expressions_follow_one_another_and_count_starts_again() -> None:
    several = ['IP(dst="192.0.2.1")/UDP(dport=(1,2))', 'IP(dst="192.0.2.9")/UDP()']
    assert len([*craft(several)]) == 3
    assert [Ether(frame)[IP].dst for frame in craft(several, 5)] == [f"192.0.2.{n}" for n in (1, 1, 9, 1, 1)]


def test_count_takes_some_of_a_large_range(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len([*craft(['IP(dst="10.0.0.0/8")'], 3)]) == 3
    monkeypatch.setattr(module, "MOST_FRAMES", 10)
    frames = craft(['IP(dst="10.0.0.0/8")'])
    assert len([*islice(frames, 10)]) == 10
    with pytest.raises(CraftError, match="more than 10 packets: take some of them with --count"):
        next(frames)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("__import__('os').system('id')", "is not a layer"),
        ("open('/etc/passwd')", "'open' is not a layer"),
        ("Packet()", "'Packet' is not a layer"),
        ("IP().show()", r"'IP\(\).show' is not a layer"),
        ("IP()/os", "'os' is not allowed"),
        ("IP().__class__", "is not allowed"),
        ("IP(dst=lambda: 1)", "is not allowed"),
        ("IP(dst=f'{1}')", "is not allowed"),
        ("[IP() for _ in (1,)]", "is not allowed"),
        ("IP(dst={'a': 1})", "is not allowed"),
        ("IP()*3", "is not allowed"),
        ("IP()/('a'*9)", "is not allowed"),
        ("-IP()", "is not allowed"),
        ("IP(b'x')", "takes named fields only"),
        ("IP(*[1])", "takes named fields only"),
        ("IP(**{})", r"has no field \*\*"),
        ("IP(_pkt=b'x')", "has no field _pkt: its fields are version, ihl"),
        ("IP()/TCP(dprt=1)", "TCP has no field dprt: its fields are sport, dport"),
        ("IP(dst='localhost')", "dst: 'localhost' does not appear"),
        ("IP(dst=[['localhost']])", "dst: 'localhost' does not appear"),
        ("IP(options=[IPOption_RR(routers=['localhost'])])", "routers: 'localhost' does not appear"),
        ("IPv6(dst='localhost')", "dst: 'localhost' does not appear"),
        ("IP()/[1]", "/ puts a layer, a string or bytes"),
        ("'a'/IP()", "/ puts a layer, a string or bytes"),
        ("1", "not a packet"),
        ("TCP()", "begins with TCP"),
        ("IP(", "syntax error"),
        ("", "syntax error"),
        ("IP()\0", "cannot be parsed|null bytes"),
        ("IP()" + "/IP()" * 3000, "longer than 10000 characters"),
        ("(" * 5000 + ")" * 5000, "cannot be parsed|syntax error|too many"),
    ],
)
def test_anything_but_layers_and_literals_is_refused(expression: str, reason: str) -> None:
    with pytest.raises(CraftError, match=reason):
        craft([expression])


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("IP()/TCP(dport=70000)", "cannot be built: While building field 'dport'"),
        ("IP()/UDP(dport=[])", "stands for no packet"),
    ],
)
def test_a_packet_that_scapy_cannot_build_is_reported(expression: str, reason: str) -> None:
    with pytest.raises(CraftError, match=reason):
        next(craft([expression], 1))


def test_no_name_is_resolved_and_no_local_address_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a look-up in DNS"))
    with pytest.raises(CraftError):
        craft(['IP(dst="example.com")'])
    monkeypatch.undo()
    (frame,) = craft(['ARP(pdst="192.0.2.1")'])
    assert (Ether(frame).psrc, Ether(frame).hwsrc) == ("198.51.100.1", "02:00:00:00:00:01")


@pytest.mark.slow
def test_daemons_do_not_load_scapy() -> None:
    code = (
        "import sys, pkgutil, importlib, lbmux.daemons as d\n"
        "for m in pkgutil.iter_modules(d.__path__): importlib.import_module('lbmux.daemons.' + m.name)\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'scapy'])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
