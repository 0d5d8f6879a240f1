"""`lbmux steer run` without gdnsd: what it publishes after changes of files and of health, and weights at a proxy."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbmux.api.answers import Bgp, RoundTripLine, RoundTrips
from lbmux.api.requests import GetRoundTrips, HoldRoutes
from lbmux.steering.map_change import MapChange
from lbmux.steering.steering_map import SteeringMap, write
from lbmux.tools import steer_loop
from lbmux.tools.manager_maps import ManagerMaps
from lbmux.tools.steer_loop import Server, SteerLoop
from tests.api.answering import answering, said
from tests.manager.running import running_manager

CENTRES = [{"name": "dc1", "capacity": 1}, {"name": "dc2", "capacity": 1}]
NEAR = {"name": "near", "addresses": ["127.0.0.1"], "capacity": 100, "proxies": ["api.sock"]}
FAR = {"name": "far", "addresses": ["127.0.0.2"], "capacity": 100}


class Fixture:
    """``published``: the maps in turn; ``lines``: what the proxy's runtime API got."""

    def __init__(self, directory: Path) -> None:
        self.config, self.latency = directory / "steering.yaml", directory / "latency.csv"
        self.published, self.lines = list[SteeringMap](), list[str]()
        self.open_port = 0

    def write(self, **changes: Any) -> None:
        data = {"name": "www.example.net", "groups": "groups.csv", "latency": "latency.csv", "default": "near",
                "pops": [NEAR, FAR], "data_centres": CENTRES}  # fmt: skip
        self.config.write_text(yaml.safe_dump(data | changes))

    def publish(self, fixture: SteeringMap, directory: Path, listen: object, port: int) -> int:
        self.published.append(fixture)
        (directory / "current").mkdir(exist_ok=True)
        write(directory / "current" / "map.json", fixture)
        return len(self.published)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line:  # else a step ended before its request was written
            self.lines.append(line.decode().strip())
        writer.write(b"\n")
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self, maps: ManagerMaps | None = None, *, computes: bool = True) -> AsyncIterator[SteerLoop]:
        server, stop = Server(self.config.parent, (ip_address("192.0.2.53"),)), asyncio.Event()
        loop = SteerLoop(self.config if computes else None, server, maps)
        async with await asyncio.start_unix_server(self.serve, self.config.parent / "api.sock"):
            task = asyncio.create_task(loop.run(stop, asyncio.Event()))
            try:
                yield loop
            finally:
                stop.set()
                await task


@pytest.fixture
def steered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fixture:
    fixture = Fixture(tmp_path)
    monkeypatch.setattr(steer_loop, "publish", fixture.publish)
    monkeypatch.setattr(steer_loop, "STEP_S", 0.05)
    (tmp_path / "groups.csv").write_text("prefix,users,resolver\n198.51.100.0/24,10,\n")
    (tmp_path / "latency.csv").write_text("prefix,pop,rtt_ms,low_ms,high_ms,samples,time\n")
    fixture.write()
    return fixture


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def pop_of(fixture: SteeringMap) -> str:
    (weights,) = fixture.groups.values()
    return max(weights, key=lambda name: weights[name])


def test_a_change_of_the_file_gives_a_new_map_and_the_same_file_none(steered: Fixture) -> None:
    async def change() -> None:
        async with steered.running():
            await until(lambda: len(steered.published) == 1)
            steered.write(ttl_s=7)
            await until(lambda: len(steered.published) == 2)
            steered.write(ttl_s=7)  # the same map
            steered.write(ttl_s=8)
            await until(lambda: len(steered.published) == 3)

    asyncio.run(change())
    assert [fixture.ttl_s for fixture in steered.published] == [30, 7, 8]


def test_users_leave_a_pop_that_stops_answering_and_a_wrong_file_changes_nothing(
    steered: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    async def lose(port: int, server: asyncio.Server) -> None:
        async with steered.running() as loop:
            await until(lambda: loop.in_force is not None and pop_of(loop.in_force) == "near")
            steered.config.write_text("pops: 7")
            await until(lambda: loop.faults["map"] != "" and loop.faults["_set_weights"] != "")
            assert loop.in_force == steered.published[-1]
            assert caplog.text.count("pops") == 1
            steered.write(**health(port))
            server.close()
            await until(lambda: loop.in_force is not None and pop_of(loop.in_force) == "far")

    def health(port: int) -> dict[str, Any]:
        return {"health": {"kind": "tcp", "port": port, "interval_s": 0.05, "timeout_s": 0.05, "fall": 2, "rise": 1}}

    async def both() -> None:
        near = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = near.sockets[0].getsockname()[1]
        async with await asyncio.start_server(lambda *_: None, "127.0.0.2", port):
            steered.write(**health(port))
            await lose(port, near)

    asyncio.run(both())


def test_a_draining_data_centre_loses_a_tenth_of_the_requests_a_step(steered: Fixture) -> None:
    async def drain() -> None:
        async with steered.running():
            await until(lambda: len(steered.lines) > 0)
            steered.write(data_centres=[CENTRES[0] | {"draining": True}, CENTRES[1]])
            await until(lambda: "dc1 weight 0;" in steered.lines[-1])

    asyncio.run(drain())
    weights = list(dict.fromkeys(int(line.split("dc1 weight ")[1].split(";")[0]) for line in steered.lines))
    assert weights == [256, 171, 110, 64, 28, 0]  # of 256, with 50, 40, ... 0 % of the requests


def test_a_map_is_a_revision_first_and_other_servers_publish_it(steered: Fixture, tmp_path: Path) -> None:
    (other := tmp_path / "other").mkdir()

    async def follow(maps: ManagerMaps) -> None:
        follower = Fixture(other)
        follower.published = steered.published
        async with steered.running(maps), follower.running(maps, computes=False) as following:
            await until(lambda: following.in_force is not None)
            steered.write(ttl_s=7)
            await until(lambda: following.in_force is not None and following.in_force.ttl_s == 7)
            await asyncio.to_thread(steered.write, ttl_s=7)
        assert [one.ttl_s for one in steered.published] == [30, 30, 7, 7]

    with running_manager(tmp_path / "manager") as manager:
        maps = ManagerMaps(manager.client())
        asyncio.run(follow(maps))
        assert maps.number() == 2


def test_without_the_manager_the_last_map_stays(steered: Fixture, tmp_path: Path) -> None:
    async def lose(manager: contextlib.ExitStack, maps: ManagerMaps) -> None:
        async with steered.running(maps) as loop:
            await until(lambda: len(steered.published) == 1)
            await asyncio.to_thread(manager.close)
            await until(lambda: "the map in force stays" in loop.faults.get("manager", ""))
            steered.write(ttl_s=7)
            await until(lambda: loop.faults["map"] != "")
            assert loop.in_force == steered.published[-1] and loop.in_force.ttl_s == 30

    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(running_manager(tmp_path / "manager"))
        asyncio.run(lose(stack, ManagerMaps(manager.client())))
    assert len(steered.published) == 1


def test_a_restored_map_stays_until_a_pop_that_it_uses_fails(steered: Fixture, tmp_path: Path) -> None:
    async def restore(maps: ManagerMaps) -> None:
        async with steered.running(maps):
            await until(lambda: len(steered.published) == 1)
            steered.write(ttl_s=7)
            await until(lambda: len(steered.published) == 2)
            _, first = await asyncio.to_thread(maps.read, 1)
            restored = MapChange(first, 10, 0, 1, None)
            await asyncio.to_thread(maps.propose, restored, 2, "", restores=1)
            await until(lambda: len(steered.published) == 3)
            steered.write(ttl_s=8, pops=[NEAR | {"healthy": False}, FAR])
            await until(lambda: len(steered.published) == 4)
        assert [one.ttl_s for one in steered.published] == [30, 7, 30, 8]

    with running_manager(tmp_path / "manager") as manager:
        asyncio.run(restore(ManagerMaps(manager.client())))


def test_it_collects_round_trips_and_muxes_follow_the_map(steered: Fixture, tmp_path: Path) -> None:
    got = list[HoldRoutes]()
    report = RoundTrips(1, "agent", [RoundTripLine("198.51.100.0/24", 12.0, 11.0, 14.0, 60, time.time())])

    async def hold(request: HoldRoutes) -> Bgp:
        got.append(request)
        return Bgp(1, "bird", [], [], [], request.held)

    async def steer() -> None:
        async with steered.running():
            await until(lambda: got == [HoldRoutes(False)] and "near,12.000" in steered.latency.read_text())
            await until(lambda: not steered.published[-1].estimated)
            steered.write(pops=[near | {"healthy": False}, FAR])
            await until(lambda: got[1:] == [HoldRoutes(True)])

    near = NEAR | {"muxes": ["m.sock"], "agents": ["a.sock"]}
    steered.write(pops=[near, FAR])
    with (
        answering(tmp_path / "m.sock", {HoldRoutes: hold}),
        answering(tmp_path / "a.sock", {GetRoundTrips: said(report)}),
    ):
        asyncio.run(steer())
