"""`lbmux.Mux`: frames in and out, flows, and reloads that fail without a trace."""

from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

import lbmux
from tests.datapath.plain_packet import a_hop_on


def config(number: int = 2, **service: Any) -> dict[str, Any]:
    one = {
        "name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80,
        "backends": [{"name": f"h{n}", "dip": f"10.1.{n}.2"} for n in range(1, number + 1)],
    }  # fmt: skip
    return {"muxes": ["10.0.1.2"], "maglev": {"size": 251}, "services": [one | service]}


def frame(port: int = 40000, flags: str = "S", vip: str = "192.0.2.1") -> bytes:
    ip = IP(src="198.51.100.7", dst=vip)
    return bytes(Ether(dst="02:00:00:00:00:08") / ip / TCP(sport=port, dport=80, flags=flags))


@pytest.fixture
def mux() -> lbmux.Mux:
    return lbmux.Mux(config())


class TestForward:
    def test_the_frame_is_tunnelled_from_the_first_mux_of_the_file(self, mux: lbmux.Mux) -> None:
        sent = mux.forward(frame())
        assert (sent.verdict, sent.service) == ("forwarded", "web") and sent.frame is not None
        outer = Ether(sent.frame)[IP]
        assert (outer.src, outer.dst) == ("10.0.1.2", {"h1": "10.1.1.2", "h2": "10.1.2.2"}[str(sent.backend)])
        assert bytes(outer.payload) == a_hop_on(frame())

    def test_the_given_frame_stays(self, mux: lbmux.Mux) -> None:
        original = bytearray(frame())
        mux.forward(original)
        assert original == frame()

    @pytest.mark.parametrize(
        ("original", "verdict"),
        [
            (frame(vip="192.0.2.9"), "not_vip"),
            (bytes(Ether(dst="02:00:00:00:00:08") / ARP()), "not_ip"),
            (frame()[:20], "truncated"),
            (b"", "truncated"),
        ],
        ids=["another address", "ARP", "cut", "empty"],
    )
    def test_what_is_not_sent(self, mux: lbmux.Mux, original: bytes, verdict: str) -> None:
        assert mux.forward(original) == lbmux.Forwarded(verdict, None, None, None)

    def test_ipv6_without_a_mux_of_its_family(self) -> None:
        backends = [{"name": "h1", "dip": "fd00:1::2"}]
        mux = lbmux.Mux(config(vip="2001:db8::1", backends=backends, protocol="udp"))
        ip = IPv6(src="2001:db8::7", dst="2001:db8::1")
        sent = mux.forward(Ether(dst="02:00:00:00:00:08") / ip / UDP(sport=40000, dport=80))
        assert sent.frame is not None and Ether(sent.frame)[IPv6].dst == "fd00:1::2"


class TestConfiguration:
    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "s.yaml").write_text(
            "services: [{name: web, vip: 192.0.2.1, protocol: tcp, port: 80, backends: [{name: a, dip: 10.1.1.2}]}]"
        )
        assert lbmux.Mux(tmp_path / "s.yaml").forward(frame()).backend == "a"
        assert lbmux.Mux(str(tmp_path / "s.yaml")).config.services[0].name == "web"

    def test_errors_name_the_field(self) -> None:
        with pytest.raises(lbmux.ConfigError, match=r"services\[0\].vip"):
            lbmux.Mux(config(vip="192.0.2.300"))


class TestReload:
    def test_a_connection_stays_when_its_backend_is_drained(self, mux: lbmux.Mux) -> None:
        backend = mux.forward(frame()).backend
        drained = config()
        next(one for one in drained["services"][0]["backends"] if one["name"] == backend)["weight"] = 0
        assert mux.reload(drained) == [f"service web: backend {backend} changed"]
        assert mux.forward(frame(flags="A")).backend == backend
        assert [(flow.source, flow.source_port, flow.backend) for flow in mux.flows()] == [
            ("198.51.100.7", 40000, backend)
        ]

    def test_a_new_backend_gets_frames(self, mux: lbmux.Mux) -> None:
        assert mux.reload(config(3)) == ["service web: backend h3 added"]
        assert len({mux.forward(frame(port)).backend for port in range(41000, 41200)}) == 3

    def test_an_error_leaves_the_configuration_in_force(self, mux: lbmux.Mux) -> None:
        backend = mux.forward(frame()).backend
        with pytest.raises(lbmux.ConfigError):
            mux.reload(config(port=0))
        with pytest.raises(lbmux.TableError):
            mux.reload(config() | {"maglev": {"size": 2_000_003}})
        assert mux.forward(frame(flags="A")).backend == backend and mux.config.maglev.size == 251
