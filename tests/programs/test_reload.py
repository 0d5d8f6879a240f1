"""The order of a reload's steps."""

import asyncio
from pathlib import Path

import pytest

from lbmux.control.config import Config
from lbmux.errors import TableError
from lbmux.programs.reload import Reloader

FILE = """
services: [{name: web, vip: 192.0.2.1, protocol: tcp, port: 80, backends: [{dip: 10.0.2.1}]}]
"""


class Recorded:
    """Tables that only write down what is done to them."""

    def __init__(self, fits: bool = True) -> None:
        self.config: Config | None = Config(services=())
        self.steps: list[str] = []
        self._fits = fits

    def plan(self, config: Config) -> Config:
        self.steps.append("plan")
        if not self._fits:
            raise TableError("slots", 2, 1)
        return config

    def commit(self, plan: Config) -> None:
        self.steps.append("commit")
        self.config = plan

    async def in_force(self) -> None:
        self.steps.append("announce")

    async def leaving(self, config: Config) -> bool:
        self.steps.append("withdraw")
        return True


def reloader(path: Path, tables: Recorded) -> Reloader:
    file = path / "lbmux.yaml"
    file.write_text(FILE)
    return Reloader(file, tables, tables.in_force, leaving=tables.leaving)


def test_withdraws_before_the_tables_change_and_announces_after(tmp_path: Path) -> None:
    tables = Recorded()
    asyncio.run(reloader(tmp_path, tables).reload())
    assert tables.steps == ["plan", "withdraw", "plan", "commit", "announce"]


def test_withdraws_nothing_for_a_plan_that_does_not_fit(tmp_path: Path) -> None:
    tables = Recorded(fits=False)
    made = reloader(tmp_path, tables)
    with pytest.raises(TableError):
        asyncio.run(made.reload())
    assert tables.steps == ["plan"]
    assert made.wanted == Config(services=())
