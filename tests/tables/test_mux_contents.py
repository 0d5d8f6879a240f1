"""The rows of backends and of VIPs' usage in the contents of a mux's tables."""

from ipaddress import ip_address

import pytest

from lbmux.config.models import Service
from lbmux.tables.mux_contents import Contents, PlacedService

VIP, OTHER_VIP = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def placed(name: str, vip: object, port: int, row: int, **backends: int) -> PlacedService:
    lines = [{"name": backend, "dip": f"10.1.1.{row}"} for backend, row in backends.items()]
    text = {"name": name, "vip": str(vip), "protocol": "tcp", "port": port, "backends": lines}
    return PlacedService(Service.model_validate(text), row, backends)


def contents(*services: PlacedService) -> Contents:
    return Contents(services={one.service.name: one for one in services})


def test_rows_are_those_of_the_placed_services() -> None:
    rows = contents(placed("web", VIP, 80, 3, a=7, b=8), placed("tls", VIP, 443, 5, a=9)).rows
    assert dict(rows) == {("web", "a"): 7, ("web", "b"): 8, ("tls", "a"): 9} and len(rows) == 3
    for missing in (("web", "c"), ("ssh", "a")):
        assert missing not in rows
        with pytest.raises(KeyError):
            rows[missing]


def test_a_vip_has_the_row_of_its_first_service() -> None:
    services = placed("tls", VIP, 443, 5), placed("web", VIP, 80, 3), placed("other", OTHER_VIP, 80, 4)
    assert contents(*services).vips == {VIP: 3, OTHER_VIP: 4}
