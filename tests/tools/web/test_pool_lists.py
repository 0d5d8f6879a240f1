"""The page's lists, and the search over a pool."""

from typing import Any

from lbmux.tools.web.pool_lists import MOST_FOUND, backends_of_host, host_lines, search, service_lines


def backend(name: str, host: str, state: str = "up", packets: float = 1.5) -> dict[str, Any]:
    return {
        "backend": name, "dip": host, "port": 80, "host": host, "weight": 1, "reachable": True, "live_flows": 2,
        "health": [{"state": state, "reason": "", "muxes": ["mux1"]}], "packets_per_s": packets,
        "new_flows_per_s": 0.5, "bytes_per_s": 100.0,
    }  # fmt: skip


def service(name: str, *backends: dict[str, Any], vip: str = "192.0.2.1", agree: bool = True) -> dict[str, Any]:
    return {
        "service": name, "vip": vip, "protocol": "tcp", "port": 80, "live_flows": 4, "agree": agree,
        "backends": [*backends],
    }  # fmt: skip


WEB = service("web", backend("h1", "10.1.1.2"), backend("h2", "10.1.2.2", "down", 0.0))
DNS = service("dns", backend("h1", "10.1.1.2", "draining", 4.0), vip="2001:db8::1")


def test_a_service_is_one_line_with_sums() -> None:
    web, dns = service_lines([WEB, DNS])
    assert web == {
        "service": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "live_flows": 4, "up": 1, "of": 2,
        "packets_per_s": 1.5, "new_flows_per_s": 1.0, "severity": "bad",
    }  # fmt: skip
    assert (dns["severity"], dns["up"]) == ("planned", 0)


def test_a_service_whose_tables_differ_is_bad() -> None:
    (line,) = service_lines([service("web", backend("h1", "10.1.1.2"), agree=False)])
    assert line["severity"] == "bad"


def test_a_host_is_one_line_with_the_sums_of_its_backends() -> None:
    assert host_lines([WEB, DNS]) == [
        {"host": "10.1.1.2", "up": 1, "of": 2, "live_flows": 4, "packets_per_s": 5.5, "severity": "planned"},
        {"host": "10.1.2.2", "up": 0, "of": 1, "live_flows": 2, "packets_per_s": 0.0, "severity": "bad"},
    ]
    assert [(one["service"], one["backend"]) for one in backends_of_host([WEB, DNS], "10.1.1.2")] == [
        ("web", "h1"), ("dns", "h1")
    ]  # fmt: skip


def found(text: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(one["kind"], one["at"]) for one in search(text, [WEB, DNS], ["mux1", "web-mux"])]


def test_search_finds_names_and_addresses_in_any_case() -> None:
    assert found("WEB") == [("mux", ("web-mux",)), ("service", ("web",))]
    assert found("2001:DB8") == [("service", ("dns",))]
    assert found("10.1.2.2") == [("host", ("10.1.2.2",)), ("backend", ("web", "h2"))]
    assert found("h1") == [("backend", ("web", "h1")), ("backend", ("dns", "h1"))]
    assert found("  ") == found("nothing") == []


def test_search_is_bounded() -> None:
    services = [service(f"service{n}") for n in range(MOST_FOUND + 10)]
    assert len(search("service", services, [])) == MOST_FOUND
