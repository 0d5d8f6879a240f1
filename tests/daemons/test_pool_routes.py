"""Announcements by the pool's overrides: at the start, with each change, and with what was given at the node itself.

The last test has real daemons.
"""

import contextlib
import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from lbmux.bgp.announced import Announced, Commands, after_command
from lbmux.cli.main import run as lbmux
from lbmux.daemons.pool_routes import PoolRoutes
from lbmux.lab.lab import Lab
from lbmux.manager.proposals import Proposal
from lbmux.manager.records import list_events
from lbmux.manager.route_overrides import RouteOrder, commands_at
from tests.api.asking import ask
from tests.daemons.running_daemons import READY
from tests.daemons.test_manager_link import started
from tests.daemons.test_mux_with_manager import H1, URL, Node
from tests.lab.routed import until as until_true
from tests.manager.test_nodes import Lab as Pool
from tests.manager.test_nodes import run, until
from tests.manager.test_pool import ALICE, file

VIP, HELD = IPv4Address("192.0.2.1"), Announced(is_held=True)


class Followed:
    """An announcer that only remembers its commands."""

    def __init__(self) -> None:
        self.commands: Commands = {}

    async def command(self, commands: Commands) -> None:
        self.commands = commands


def followed() -> Any:
    return Followed()


def test_what_was_given_here_is_the_difference_from_the_pools() -> None:
    announcer, pools = followed(), {VIP: HELD}
    routes = PoolRoutes(announcer, lambda: pools)
    assert announcer.commands == pools and not routes.local()
    announcer.commands = after_command(pools, None, Announced(prepended=2))
    changes = {one.vip: (one.held.held, one.announcement.prepended) for one in routes.local()}
    assert changes == {VIP: (True, 0), None: (False, 2)}


def test_a_node_starts_with_the_pools_overrides_and_follows_them(tmp_path: Path) -> None:
    async def scenario(lab: Pool) -> None:
        await lab.pool.apply(Proposal(file(1)), ALICE)
        await lab.pool.announce(RouteOrder(VIP, None, HELD), ALICE)
        await until(lambda: lab.managers[0].state.stored.version == 1)
        made, reloader, _ = await started(lab)
        made.announce_by(announcer := followed())
        assert announcer.commands == {VIP: HELD}
        async with made.following(reloader):
            await lab.pool.announce(RouteOrder(None, "mux2", HELD), ALICE)
            await lab.pool.announce(RouteOrder(VIP, None, Announced()), ALICE)
            await until(lambda: announcer.commands == {})
            await lab.pool.announce(RouteOrder(None, "mux1", HELD), ALICE)
            await until(lambda: announcer.commands == {None: HELD})

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("pools", "wanted", "conflict"),
    [
        (None, Announced(prepended=1), ""),
        (HELD, Announced(prepended=1), "192.0.2.1: announced as .*, given at mux1 at .*: the pool has it withdrawn"),
    ],
)
def test_routes_of_a_mux_without_a_primary_are_taken_over(
    pools: Announced | None, wanted: Announced, conflict: str, tmp_path: Path
) -> None:
    async def scenario(lab: Pool) -> None:
        await lab.pool.apply(Proposal(file(1)), ALICE)
        await until(lambda: lab.managers[0].state.revision == 1)
        made, reloader, _ = await started(lab)
        made.announce_by(announcer := followed())
        announcer.commands = {VIP: wanted}
        if pools is not None:
            await lab.pool.announce(RouteOrder(VIP, None, pools), ALICE)
        async with made.following(reloader):
            await until(lambda: "mux1" in lab.managers[0].reports and lab.managers[0].reports["mux1"].overrides == 1)
        expected = {VIP: pools or wanted}
        assert announcer.commands == commands_at(lab.pool.state.stored.routes, "mux1") == expected
        events = [one.text for one in await list_events(lab.managers[0].store, 9) if one.kind == "conflict"]
        assert bool(events) is bool(conflict) and re.search(conflict, "".join(events))

    run(tmp_path, scenario)


class BgpNode(Node):
    """A mux with a BGP speaker; no router answers it."""

    @contextlib.contextmanager
    def mux(self) -> Iterator[None]:
        with self.running(READY["mux"], "mux", *self.words()):
            yield

    def words(self) -> list[str]:
        identity = self.directory / self.name
        if not identity.exists():
            (self.directory / "join").write_text(self.run("manager", "join-token", self.name, *self.access))
            token = str(self.directory / "join")
            self.run("join", "--manager", URL, "--join-token-file", token, "--state", str(identity))
        words = ["--manager", URL, "--state", str(identity), "-i", "eth0", "--driver", "packet", "--drain", "0"]
        return [*words, "--control", str(self.control), "--bgp-speaker", "bird", "--bgp-peer", "10.0.1.1"]

    @property
    def control(self) -> Path:
        return self.directory / f"{self.name}.sock"

    def announces(self, *prefixes: str) -> None:
        until_true(lambda: ask(self.control, "bgp")["prefixes"] == [*prefixes], 30, 0.02)


@pytest.mark.root
def test_a_withdrawal_is_in_force_on_every_mux_and_survives_restarts(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, prefix = BgpNode(lab, tmp_path, capsys), BgpNode(lab, tmp_path, capsys, "mux2"), "192.0.2.1/32"
    with contextlib.ExitStack() as stack, contextlib.ExitStack() as manager:
        manager.enter_context(one.manager())
        one.apply(H1)
        stack.enter_context(two.mux())
        with one.mux():
            for node in (one, two):
                node.announces(prefix)
            output = one.run("withdraw", "192.0.2.1", "--reason", "attack", "--for", "2h", *one.access)
            assert output.startswith("192.0.2.1: withdrawn at all muxes and edges, until 20")
            for node in (one, two):
                node.announces()
        manager.close()
        manager.enter_context(one.restarted_manager())
        with one.mux():
            one.announces()
            listed = one.run("show", "overrides", *one.access)
            assert re.search(r"192\.0\.2\.1 +all +withdrawn +admin .* attack", listed)
            lab.inside("mux1", lambda: lbmux(["withdraw", "--control", str(one.control)]))
            assert "this node follows the manager" in capsys.readouterr().err
            one.run("withdraw", "--node", "mux1", "--for", "1s", *one.access)
            one.run("announce", "192.0.2.1", *one.access)
            for node in (two, one):  # mux1 a second later
                node.announces(prefix)
            assert "expiry" in one.run("show", "events", *one.access)
