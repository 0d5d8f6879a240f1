"""Who may report black holes to the manager."""

import asyncio
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lbmux.config.loader import parse
from lbmux.manager.api_models import BlackHoleRequest
from lbmux.manager.black_hole_handler import black_hole
from lbmux.manager.tokens import AccessError
from tests.manager.test_pool import file


def reported(vip: str, role: str | None) -> list[str]:
    """Return the events after the report of a node of this role; None: it is not connected."""
    events = list[str]()

    async def record(kind: str, caller: object, text: str) -> None:
        events.append(f"{kind}: {text}")

    state = SimpleNamespace(config=parse(file(1), Path("file")))
    nodes = {} if role is None else {"mux1": SimpleNamespace(role=role)}
    manager = SimpleNamespace(nodes=nodes, state=state, pool=SimpleNamespace(record=record))
    body = BlackHoleRequest(vip=ip_address(vip), begins=True, reason="flooded")
    call: Any = SimpleNamespace(manager=manager, node=SimpleNamespace(name="mux1"), caller=None, body=body)
    asyncio.run(black_hole(call))
    return events


@pytest.mark.parametrize("role", ["mux", "edge"])
def test_those_that_forward_do(role: str) -> None:
    assert reported("192.0.2.1", role) == ["black_hole: VIP 192.0.2.1 is a black hole: flooded"]


@pytest.mark.parametrize("role", ["agent", None])
def test_others_are_refused(role: str | None) -> None:
    with pytest.raises(AccessError, match="is not a mux that is connected"):
        reported("192.0.2.1", role)


def test_a_vip_has_to_be_one_of_the_pools() -> None:
    with pytest.raises(AccessError, match=r"no service has the VIP 192\.0\.2\.77"):
        reported("192.0.2.77", "mux")
