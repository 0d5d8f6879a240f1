"""A manager's new configuration is not walked by the garbage collector."""

import asyncio
import gc
from pathlib import Path

import pytest

from lbmux.daemons import exempt_configurations as exempt
from lbmux.manager.proposals import Proposal
from tests.manager.test_nodes import Lab, run, until
from tests.manager.test_pool import ALICE, file


def test_each_new_revision_is_exempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exempt, "SETTLE_S", 0.01)
    frozen = list[None]()
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(None))

    async def scenario(lab: Lab) -> None:
        task = asyncio.create_task(exempt.exempt_configurations(lab.managers[0]))
        for number in (1, 2):
            await lab.pool.apply(Proposal(file(*range(1, number + 1))), ALICE)
            await until(lambda number=number: len(frozen) == number)  # type: ignore[misc]
        task.cancel()

    run(tmp_path, scenario)
