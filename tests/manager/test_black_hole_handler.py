"""Which reports of black holes the manager takes, and when all muxes withdraw a VIP."""

from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lbmux.bgp.announced import Announced
from lbmux.manager.api_models import BlackHoleAnswer, BlackHoleRequest
from lbmux.manager.black_hole_handler import black_hole
from lbmux.manager.pool import Pool
from lbmux.manager.proposals import Caller, Proposal
from lbmux.manager.records import list_events
from lbmux.manager.route_overrides import RouteOrder, commands_at
from lbmux.manager.store.store import Store
from lbmux.manager.tokens import AccessError
from tests.manager.test_pool import ALICE, file, run

FLOODED, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.9")
FILE = """
black_hole: {upstream: %s}
services:
  - {name: web, vip: 192.0.2.1, protocol: tcp, port: 80, backends: [{name: b1, dip: 10.1.1.2}]}
  - {name: other, vip: 192.0.2.9, protocol: tcp, port: 80, backends: [{name: b1, dip: 10.1.1.2}]}
"""


async def report(
    pool: Pool, vip: str = "192.0.2.1", *, begins: bool = True, upstream_s: float | None = None, mux: str = "mux1",
    role: str | None = "mux",
) -> bool:  # fmt: skip
    """Report from a node of this role (None: it is not connected); return whether all muxes follow."""
    nodes = {} if role is None else {mux: SimpleNamespace(role=role)}
    manager = SimpleNamespace(nodes=nodes, state=pool.state, pool=pool, clock=lambda: 1000.0)
    body = BlackHoleRequest(vip=ip_address(vip), begins=begins, reason="flooded", upstream_s=upstream_s)
    call: Any = SimpleNamespace(manager=manager, node=SimpleNamespace(name=mux), caller=Caller(mux), body=body)
    answer = await black_hole(call)
    assert isinstance(answer, BlackHoleAnswer)
    return answer.upstream


def upstream(tmp_path: Path, what: str, scenario: Any) -> None:
    """Run a scenario with a pool of two VIPs."""

    async def with_file(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal((FILE % what).encode()), ALICE)
        await scenario(pool)

    run(tmp_path, with_file)


@pytest.mark.parametrize("role", ["mux", "edge"])
def test_black_holes_of_those_that_forward_are_events(tmp_path: Path, role: str) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1)), ALICE)
        await report(pool, role=role)
        event = (await list_events(store, 1))[0]
        assert (event.kind, event.by, event.text) == ("black_hole", "mux1", "VIP 192.0.2.1 is a black hole: flooded")

    run(tmp_path, scenario)


def test_other_reports_are_refused(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1)), ALICE)
        for role in ("agent", None):
            with pytest.raises(AccessError, match="is not a mux that is connected"):
                await report(pool, role=role)
        with pytest.raises(AccessError, match=r"no service has the VIP 192\.0\.2\.77"):
            await report(pool, "192.0.2.77")

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("what", "changes"), [("withdraw", Announced(is_held=True)), ("blackhole", Announced(is_black_hole=True))]
)
def test_all_muxes_drop_it_upstream_for_the_time_that_one_mux_needs(
    tmp_path: Path, what: str, changes: Announced
) -> None:
    async def scenario(pool: Pool) -> None:
        assert await report(pool, upstream_s=20)
        (stored,) = pool.state.stored.routes
        assert (stored.by, stored.node, stored.until) == ("mux1", None, 1020.0)
        assert commands_at(pool.state.stored.routes, "mux2") == {FLOODED: changes}
        assert not await report(pool, upstream_s=40, mux="mux2"), "the first one stays"
        await report(pool, begins=False, mux="mux2")
        assert pool.state.stored.routes == (stored,)
        await report(pool, begins=False)
        assert not pool.state.stored.routes

    upstream(tmp_path, what, scenario)


def test_the_last_vip_of_the_pool_stays(tmp_path: Path) -> None:
    async def scenario(pool: Pool) -> None:
        assert await report(pool, upstream_s=20)
        assert not await report(pool, str(OTHER), upstream_s=20)
        assert [one.vip for one in pool.state.stored.routes] == [FLOODED]

    upstream(tmp_path, "withdraw", scenario)


def test_what_an_operator_said_about_the_vip_stays(tmp_path: Path) -> None:
    async def scenario(pool: Pool) -> None:
        order = RouteOrder(FLOODED, "mux2", Announced(prepended=2))
        stored = await pool.announce(order, ALICE)
        assert not await report(pool, upstream_s=20)
        await report(pool, begins=False)
        assert pool.state.stored.routes == stored

    upstream(tmp_path, "blackhole", scenario)


def test_nothing_is_withdrawn_unless_the_file_says_so(tmp_path: Path) -> None:
    async def scenario(pool: Pool) -> None:
        assert not await report(pool, upstream_s=20) and not pool.state.stored.routes

    upstream(tmp_path, "none", scenario)
