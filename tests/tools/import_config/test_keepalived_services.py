from pathlib import Path

from lbmux.tools.import_config.read_file import read
from tests.tools.import_config.test_read_file import FILES

IMPORTED = read(FILES["keepalived"].read_text(), Path("keepalived.conf"))
SERVICES = {service["name"]: service for service in IMPORTED.services}


def test_a_virtual_server() -> None:
    assert SERVICES["192.0.2.1-tcp-443"] == {
        "name": "192.0.2.1-tcp-443", "vip": "192.0.2.1", "protocol": "tcp", "port": 443, "hash": "source",
        "tunnel": "direct",
        "health": {
            "kind": "https", "interval_s": 6, "timeout_s": 3, "rise": 1, "fall": 3, "port": 8443, "path": "/up",
            "host": "www.example.net", "status": 204,
        },
        "backends": [
            {"dip": "10.1.0.1", "weight": 3, "port": 443},
            {"dip": "10.1.0.2", "tunnel": "gue0", "weight": 1, "port": 443},
        ],
    }  # fmt: skip


def test_a_group_has_a_service_for_each_address() -> None:
    assert [*SERVICES][1:5] == [
        "192.0.2.3-tcp-80", "192.0.2.4-tcp-80", "2001:db8::9-tcp-80", "2001:db8::a-tcp-80"
    ]  # fmt: skip
    assert SERVICES["192.0.2.4-tcp-80"]["backends"] == [{"dip": "10.1.0.1", "port": 80}]
    assert SERVICES["2001:db8::a-tcp-80"]["backends"] == [{"dip": "2001:db8:1::1", "port": 80}]


def test_a_command_is_split_into_words() -> None:
    health = SERVICES["192.0.2.3-tcp-80"]["health"]
    assert health["command"] == ["/usr/lib/check", "web"] and health["fall"] == 1


def test_dns_fails_after_its_three_retries() -> None:
    health = SERVICES["192.0.2.53-udp-53"]["health"]
    assert (health["fall"], health["query"], health["interval_s"]) == (4, "www.example.net", 60)


def test_a_server_with_another_check_is_listed() -> None:
    assert [one.line for one in IMPORTED.left if "differs from the first" in one.message] == [81]
