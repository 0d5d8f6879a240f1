from pathlib import Path

from lbmux.tools.import_config.read_file import read
from tests.tools.import_config.test_read_file import FILES

IMPORTED = read(FILES["seesaw"].read_text(), Path("cluster.pb"))
SERVICES = {service["name"]: service for service in IMPORTED.services}


def test_nodes_are_muxes() -> None:
    assert IMPORTED.muxes == ["10.0.0.2", "2001:db8::2", "10.0.0.3"]


def test_each_entry_and_family_is_a_service() -> None:
    assert [*SERVICES] == [
        "dns.resolver@site-udp-53-ipv4", "dns.resolver@site-udp-53-ipv6", "dns.resolver@site-tcp-53-ipv4",
        "dns.resolver@site-tcp-53-ipv6", "web@site-tcp-80",
    ]  # fmt: skip


def test_a_check_in_dsr_mode_goes_through_the_tunnel() -> None:
    service = SERVICES["dns.resolver@site-udp-53-ipv4"]
    assert service["tunnel"] == "direct" and service["health"] == {
        "kind": "dns", "interval_s": 5, "timeout_s": 2, "rise": 1, "fall": 2, "through": "tunnel",
        "query": "www.example.net",
    }  # fmt: skip


def test_an_entry_without_a_check_has_that_of_its_vserver() -> None:
    service = SERVICES["dns.resolver@site-tcp-53-ipv6"]
    assert service["tunnel"] == "ipip" and service["hash"] == "source"
    assert service["health"] == {
        "kind": "https", "interval_s": 10, "timeout_s": 5, "rise": 1, "fall": 1, "port": 11000, "path": "/up",
        "body": "fine", "status": 204,
    }  # fmt: skip


def test_weights_count_if_the_scheduler_uses_them() -> None:
    tcp, udp = (SERVICES[f"dns.resolver@site-{protocol}-53-ipv4"]["backends"] for protocol in ("tcp", "udp"))
    assert [backend.get("weight") for backend in (*tcp, *udp)] == [2, 1, None, None]


def test_a_backend_out_of_production_is_left_out() -> None:
    assert [one.line for one in IMPORTED.left if one.message == "dns3.example.net is DISABLED"] == [37]


def test_a_timeout_above_the_interval_is_lowered() -> None:
    assert SERVICES["web@site-tcp-80"]["health"]["timeout_s"] == 1
    assert any("lowered to 1 s" in one.message for one in IMPORTED.left)
