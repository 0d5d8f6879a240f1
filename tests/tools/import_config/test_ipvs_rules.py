from pathlib import Path
from typing import Any

import pytest

from lbmux.tools.import_config.read_file import read
from tests.tools.import_config.test_read_file import FILES


def service(*rules: str) -> dict[str, Any]:
    (parsed,) = read("\n".join(rules), Path("rules")).services
    return parsed


def test_services_and_their_servers() -> None:
    services = read(FILES["ipvs"].read_text(), Path("rules")).services
    assert [(one["name"], len(one["backends"])) for one in services] == [
        ("192.0.2.1-tcp-80", 3), ("192.0.2.1-udp-53", 1), ("2001:db8::1-tcp-any", 1)
    ]  # fmt: skip


@pytest.mark.parametrize(("method", "tunnel"), [("-g", "direct"), ("-i", "ipip"), ("-m", "ipip"), ("", "direct")])
def test_forwarding_methods(method: str, tunnel: str) -> None:
    parsed = service("-A -t 192.0.2.1:80 -s wrr", f"-a -t 192.0.2.1:80 -r 10.0.0.1:81 {method} -w 2")
    assert parsed["backends"] == [{"dip": "10.0.0.1", "port": 81, "tunnel": tunnel, "weight": 2}]


@pytest.mark.parametrize(("kind", "tunnel"), [("ipip", "ipip"), ("gue", "gue0"), ("gre", "gre")])
def test_kinds_of_tunnels(kind: str, tunnel: str) -> None:
    parsed = service("-A -t 192.0.2.1:80 -s rr", f"-a -t 192.0.2.1:80 -r 10.0.0.1:80 -i --tun-type {kind}")
    assert parsed["backends"][0]["tunnel"] == tunnel


def test_persistence_without_a_time_is_hashing_of_sources() -> None:
    assert service("--add-service --udp-service 192.0.2.1:53 --persistent")["hash"] == "source"
