"""Which VIPs a mux announces when its configuration changes and when it stops."""

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from lbmux.bgp.bgp_settings import Route
from lbmux.config.models import Config
from lbmux.daemons.vip_routes import VipRoutes

FIRST, SECOND = "192.0.2.1", "2001:db8::2"
DIPS = {FIRST: "10.0.2.1", SECOND: "2001:db8:1::1"}


class Announcer:
    """Writes down what it is asked to announce."""

    def __init__(self) -> None:
        self.announced: list[set[str]] = []

    async def announce(self, routes: frozenset[Route]) -> None:
        self.routes = routes
        self.announced.append({str(route.prefix.network_address) for route in routes})

    async def withdraw(self) -> None:
        self.announced.append(set())


def config(*vips: str, upstream: str = "none") -> Config:
    services = [
        {"name": vip, "vip": vip, "protocol": "tcp", "port": 80, "backends": [{"dip": DIPS[vip]}]} for vip in vips
    ]
    return Config.model_validate({"services": services, "black_hole": {"upstream": upstream}})


def routes(*vips: str, upstream: str = "none") -> tuple[VipRoutes, Announcer]:
    announcer, mux = Announcer(), SimpleNamespace(config=config(*vips, upstream=upstream))
    doubles: tuple[Any, Any] = announcer, mux
    return VipRoutes(*doubles), announcer


def test_a_removed_vip_is_withdrawn_before_the_commit() -> None:
    vip_routes, announcer = routes(FIRST, SECOND)
    assert asyncio.run(vip_routes.withdraw_removed(config(SECOND)))
    assert announcer.announced == [{SECOND}]


def test_a_commit_that_removes_no_vip_withdraws_nothing() -> None:
    vip_routes, announcer = routes(FIRST)
    assert not asyncio.run(vip_routes.withdraw_removed(config(FIRST, SECOND)))
    assert announcer.announced == []


def test_nothing_is_announced_again_while_the_mux_drains() -> None:
    vip_routes, announcer = routes(FIRST)

    async def stop() -> None:
        await vip_routes.announce(config(FIRST))
        await vip_routes.withdraw()
        await vip_routes.announce(config(FIRST, SECOND))

    asyncio.run(stop())
    assert announcer.announced == [{FIRST}, set()]


def test_a_mux_without_an_announcer_has_nothing_to_withdraw() -> None:
    mux: Any = SimpleNamespace(config=config(FIRST))
    vip_routes = VipRoutes(None, mux)
    asyncio.run(vip_routes.announce(config(FIRST)))
    assert not asyncio.run(vip_routes.withdraw_removed(config()))


def test_a_vip_to_be_dropped_upstream_is_withdrawn_until_it_is_back() -> None:
    vip_routes, announcer = routes(FIRST, SECOND, upstream="withdraw")

    async def flooded() -> None:
        await vip_routes.drop_upstream([])
        await vip_routes.drop_upstream([ip_address(FIRST)])
        await vip_routes.drop_upstream([ip_address(FIRST)])
        await vip_routes.announce(config(FIRST, SECOND, upstream="withdraw"))  # a reload
        await vip_routes.drop_upstream([])

    asyncio.run(flooded())
    assert announcer.announced == [{SECOND}, {SECOND}, {FIRST, SECOND}]


def test_a_vip_to_be_dropped_upstream_is_announced_as_a_black_hole() -> None:
    vip_routes, announcer = routes(FIRST, SECOND, upstream="blackhole")
    asyncio.run(vip_routes.drop_upstream([ip_address(SECOND)]))
    assert {str(route.prefix.network_address): route.is_black_hole for route in announcer.routes} == {
        FIRST: False, SECOND: True,
    }  # fmt: skip
