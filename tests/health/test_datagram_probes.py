import asyncio
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from scapy.layers.dns import DNS

from lbmux.health.datagram_probes import query
from tests.frames.pair import Pair
from tests.health.servers import datagram_server, probe

OTHER, SILENT, UNROUTED = (IPv4Address(text) for text in ("10.9.0.2", "10.9.0.77", "192.0.2.77"))
"""Addresses: a Pair's other end, an unused one on its link, and one beyond its link."""


def against(answers: Callable[[bytes], list[bytes]], **settings: Any) -> tuple[bool, str]:
    async def run() -> tuple[bool, str]:
        async with datagram_server(answers) as port:
            return await probe(port, **settings)

    return asyncio.run(run())


def test_udp_any_answer() -> None:
    assert against(lambda data: [b"pong"], kind="udp") == (True, "answered 4 bytes")


def test_udp_expected_answer() -> None:
    echo = {"kind": "udp", "send": "ping", "expect": "ping"}
    assert against(lambda data: [data], **echo)[0]
    assert against(lambda data: [b"pong"], **echo) == (False, "the answer does not contain 'ping'")


def test_udp_silent() -> None:
    assert against(lambda data: [], kind="udp", timeout_s=0.1) == (False, "no answer within 0.1 s")


def test_udp_closed_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    healthy, why = asyncio.run(probe(port, kind="udp"))
    assert not healthy and "refused" in why.lower()


@pytest.mark.parametrize("name", [".", "backend.example", "backend.example."])
def test_query_as_scapy_reads_it(name: str) -> None:
    parsed = DNS(query(77, name))
    assert (parsed.id, parsed.rd, parsed.qdcount) == (77, 1, 1)
    assert parsed.qd[0].qname.decode().strip(".") == name.strip(".")
    assert parsed.qd[0].qtype == (2 if name == "." else 1)


def dns_answer(data: bytes, code: int) -> bytes:
    asked = DNS(data)
    return bytes(DNS(id=asked.id, qr=1, rcode=code, qd=asked.qd))


def test_dns_passes_over_another_answer() -> None:
    stray = bytes(DNS(id=0, qr=1))
    healthy, why = against(lambda data: [b"x", data, stray, dns_answer(data, 0)], kind="dns", query="a.example")
    assert (healthy, why) == (True, "answered")


def test_dns_error() -> None:
    assert against(lambda data: [dns_answer(data, 2)], kind="dns") == (False, "DNS error code 2")


@pytest.mark.root
def test_icmp_answers() -> None:
    assert asyncio.run(probe(0, kind="icmp")) == (True, "answered")


@pytest.mark.root
def test_icmp_over_ipv6_answers() -> None:
    assert asyncio.run(probe(0, IPv6Address("::1"), kind="icmp")) == (True, "answered")


@pytest.mark.root
def test_icmp_of_a_host_that_is_silent() -> None:
    pair = Pair()
    try:
        answer = pair.inside("a", lambda: asyncio.run(probe(0, SILENT, kind="icmp", timeout_s=0.1, interval_s=0.1)))
        assert answer == (False, "no answer within 0.1 s")
        assert pair.inside("a", lambda: asyncio.run(probe(0, OTHER, kind="icmp"))) == (True, "answered")
    finally:
        pair.remove()


@pytest.mark.root
def test_icmp_without_a_route() -> None:
    pair = Pair()
    try:
        healthy, why = pair.inside("a", lambda: asyncio.run(probe(0, UNROUTED, kind="icmp")))
        assert not healthy and "unreachable" in why.lower()
    finally:
        pair.remove()
