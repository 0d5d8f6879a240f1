"""Fractions at PoPs' proxies, and what these find about data centres; sockets of the test play the proxies."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lbmux.steering.steering_map import SteeringMap
from lbmux.tools.pop_weights import PopWeights
from tests.steering.pool import steering

CENTRES = [{"name": "dc1", "capacity": 1}, {"name": "dc2", "capacity": 1}]
BOTH = {"dc1": 0.5, "dc2": 0.5}


class Proxies:
    """The proxies of PoP fra: ``found`` has the status and the check's duration of each data centre, by proxy."""

    def __init__(self, directory: Path, **found: str) -> None:
        self.directory, self.found, self.lines = directory, found, list[str]()
        self.faults = dict[str, str]()
        self.weights = PopWeights(lambda subject, fault: self.faults.update({subject: fault}))
        self.steering = steering(pops={"fra": {"proxies": [f"{name}.sock" for name in found]}}, data_centres=CENTRES)

    async def serve(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines.append((await reader.readline()).decode())
        rows = [f"upstream,{one.replace(' ', ',')}," for one in self.found[name].split("; ")]
        writer.write("\n".join(["", "# pxname,svname,status,check_duration,", *rows, ""]).encode())
        writer.close()

    async def step(self, fractions: dict[str, float], dead: frozenset[str] = frozenset()) -> None:
        in_force = SteeringMap("www.example.net", 30, {}, {}, "fra", fractions={"fra": fractions}, dead=dead)
        await self.weights.step(self.steering, in_force, self.directory)

    @property
    def fra(self) -> Any:
        return self.weights.measured(self.steering.pops[0])


def run(proxies: Proxies, scenario: Callable[[], Awaitable[None]]) -> None:
    async def served() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for name in proxies.found:
                serve = lambda reader, writer, name=name: proxies.serve(name, reader, writer)  # noqa: E731 -- asyncio calls it with two arguments
                await stack.enter_async_context(
                    await asyncio.start_unix_server(serve, proxies.directory / f"{name}.sock")
                )
            await scenario()

    asyncio.run(served())


def test_a_data_centre_is_unreachable_if_all_proxies_find_it_down(tmp_path: Path) -> None:
    proxies = Proxies(tmp_path, a="dc1 DOWN 2000; dc2 UP 30", b="dc1 UP 12; dc2 UP 29")

    async def scenario() -> None:
        await proxies.step(BOTH)
        assert proxies.fra.unreachable == () and proxies.fra.rtt_ms == {"dc1": 12, "dc2": 29}
        assert proxies.weights.distances["fra"] == [0, 0]
        proxies.found["b"] = "dc1 DOWN 2000; dc2 UP 29"
        await proxies.step(BOTH)
        assert proxies.fra.unreachable == ("dc1",)
        await proxies.step({"dc1": 0.0, "dc2": 1.0})
        assert "dc1 weight 0; set server upstream/dc2 weight 256" in proxies.lines[-1]  # at once

    run(proxies, scenario)


def test_one_late_check_does_not_change_a_distance_and_a_lasting_one_does(tmp_path: Path) -> None:
    proxies = Proxies(tmp_path, a="dc1 UP 20; dc2 UP 30")

    async def scenario() -> None:
        await proxies.step(BOTH)
        proxies.found["a"] = "dc1 UP 90; dc2 UP 30"
        await proxies.step(BOTH)
        assert proxies.fra.rtt_ms["dc1"] < 21
        assert proxies.weights.distances["fra"] == [0, 0]
        for _ in range(200):
            await proxies.step(BOTH)
        assert proxies.fra.rtt_ms["dc1"] == 90
        assert proxies.weights.distances["fra"] == [3, 0]

    run(proxies, scenario)


def test_a_proxy_that_does_not_answer_is_named_and_the_others_count(tmp_path: Path) -> None:
    proxies = Proxies(tmp_path, a="dc1 UP 20; dc2 UP 30")
    pop = proxies.steering.pops[0].model_copy(update={"proxies": ("gone.sock", "a.sock")})
    proxies.steering = proxies.steering.model_copy(update={"pops": (pop, *proxies.steering.pops[1:])})

    async def scenario() -> None:
        await proxies.step(BOTH)
        assert "its weights stay" in proxies.faults["gone.sock"] and proxies.faults["a.sock"] == ""
        assert proxies.fra.rtt_ms == {"dc1": 20, "dc2": 30}

    run(proxies, scenario)


@pytest.mark.parametrize("fractions", [{}, BOTH])
def test_a_pop_without_proxies_is_as_the_file_says(tmp_path: Path, fractions: dict[str, float]) -> None:
    proxies = Proxies(tmp_path)
    asyncio.run(proxies.step(fractions))
    assert (proxies.fra.rtt_ms, proxies.fra.unreachable) == ({}, ())
