"""A daemon that follows the pool's managers in place of a file of its own."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from lbmux.api.answers import Planned
from lbmux.api.control_server import ControlServer, Handler, Handlers, Kind
from lbmux.api.protocol import VERSION
from lbmux.api.requests import AddBackend, HoldRoutes, Override, PlanRevision, Request, SetWeight
from lbmux.backends.override_commands import OverrideError
from lbmux.backends.override_store import NotStoredError, OverrideStore
from lbmux.backends.overrides import Override as BackendOverride
from lbmux.backends.overrides import Overrides
from lbmux.backends.removal import with_ending_services
from lbmux.bgp.announced import Commands
from lbmux.bgp.announcer import Announcer
from lbmux.config.known_services import parse_known
from lbmux.config.models import BackendKey, Config
from lbmux.daemons.background_task import background_task
from lbmux.daemons.pool_routes import PoolRoutes
from lbmux.daemons.reloader import Reloader
from lbmux.manager.api_models import BlackHoleRequest, LocalOverride, LocalOverridesRequest
from lbmux.manager.black_hole_reports import BlackHoleReports
from lbmux.manager.documents import StoredOverride
from lbmux.manager.held_state import NodeState
from lbmux.manager.identity import Identity
from lbmux.manager.node_client import NodeClient, TakeView
from lbmux.manager.node_messages import HealthLine, LoadLine, unpack_file
from lbmux.manager.route_overrides import commands_at
from lbmux.manager.stored_overrides import as_overrides
from lbmux.metrics.black_holes import Change

log = logging.getLogger(__name__)
PATIENCE_S = 10.0
"""Time that a start waits for a manager before it uses the stored state, in seconds."""
PRIMARY_SILENCE_S = 5.0
"""Time without a view from the primary after which a mux asks agents for backend health itself, in seconds."""
LOCAL_OVERRIDES: tuple[Kind, ...] = (Override, SetWeight, AddBackend, HoldRoutes)


class ManagerLink:
    """``path``: where the current revision's file is written, for `lbmux reload` and for people.

    ``hosts``: the addresses of an agent, or of an edge that balances.
    """

    def __init__(
        self, urls: Sequence[str], identity: Path, role: Literal["mux", "agent", "edge"], path: Path,
        hosts: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self._path, self._role = path, role
        self._parsed: tuple[str, Config] | None = None
        self._written = ""
        """Digest of the file at ``path``."""
        self._routes: PoolRoutes | None = None
        own = Identity(identity)
        self._client = NodeClient(urls, own, role, path.with_suffix(".pool"), hosts)
        self.black_hole_reports = BlackHoleReports(lambda: self.manager, own.client_context)

    async def first_config(self) -> Config:
        """Return the configuration to start with; raise ConfigError if it cannot be used and there is no other.

        A mux is given the view of the pool's health that arrives with it.
        """
        state = await self._client.first(PATIENCE_S, self._check)
        self._write(state)
        return await self._parse(state)

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Stay connected to a manager until the block ends."""
        return self._client.running()

    def report_health(
        self, states: Callable[[], Sequence[HealthLine]], loads: Callable[[], tuple[LoadLine, ...]]
    ) -> Callable[[], None]:
        """Let an agent's states and loads reach the pool; return what is to be called when they change."""
        self._client.health, self._client.loads = lambda: tuple(states()), loads
        self._client.health_changed.send()
        return self._client.health_changed.send

    def follow_health(self, take: TakeView) -> None:
        """Hand over the pool's health: what has arrived already, and each change."""
        self._client.on_view = take
        if self._client.early_view is not None:
            take(self._client.early_view)

    @property
    def manager(self) -> str:
        """The URL of the manager to which the daemon is connected, or an empty string."""
        return self._client.manager

    @property
    def has_primary(self) -> bool:
        """Whether a primary's view of the pool's health arrived recently; otherwise a mux asks agents itself."""
        return time.monotonic() - self._client.viewed_at < PRIMARY_SILENCE_S

    def report_black_hole(self, change: Change) -> None:
        """Let the pool know that a VIP became a black hole here, or is none any more."""
        self.black_hole_reports.add(
            BlackHoleRequest(vip=change.vip, begins=change.begins, reason=change.reason, upstream_s=change.upstream_s)
        )

    def adopt(self, store: OverrideStore) -> None:
        """Replace a daemon's own overrides by the pool's, before its tables are filled."""
        assert self._client.held is not None  # since `first_config`
        overrides = Overrides(as_overrides(self._client.held.stored.overrides).of, store.overrides.removals)
        try:
            store.commit(overrides, store.prepare(overrides))
        except NotStoredError as error:
            log.warning("%s", NotStoredError(error.path, error.reason, in_force=True))
            store.commit(overrides, None)

    def announce_by(self, announcer: Announcer) -> None:
        """Let an announcer follow the pool's overrides of routes, from its start on."""
        self._routes = PoolRoutes(announcer, self._commands)

    def _commands(self) -> Commands:
        """Return the pool's changes to this node's announcements."""
        assert self._client.held is not None  # since `first_config`
        return commands_at(self._client.held.stored.routes, self._client.name)

    @contextlib.asynccontextmanager
    async def following(self, reloader: Reloader) -> AsyncIterator[None]:
        """Apply the managers' states until the block ends."""

        self._client.local = lambda: LocalOverridesRequest(
            overrides=tuple(self._offered(key, own) for key, own in self._local(reloader).items()),
            routes=self._routes.local() if self._routes is not None else (),
        )

        async def accept(state: NodeState) -> None:
            pools = as_overrides(state.stored.overrides).of
            for key, own in self._local(reloader).items():
                if own != pools.get(key):  # otherwise the pool already has the same one
                    log.warning(
                        "backend %s of service %s: the manager's state replaces a local override", key[1], key[0]
                    )
            config = await self._parse(state)
            if self._role == "agent":
                config = with_ending_services(config, reloader.wanted)
            await reloader.follow_manager(config, as_overrides(state.stored.overrides))
            if self._routes is not None:
                await self._routes.follow(commands_at(state.stored.routes, self._client.name))
            self._write(state)
            log.info("revision %d with overrides %d in force", state.revision, state.stored.version)

        async with self._client.following(accept), background_task(self.black_hole_reports.run()):
            yield

    def _offered(self, key: BackendKey, own: BackendOverride | None) -> LocalOverride:
        """Return a local override as a mux offers it to the primary."""
        assert self._client.held is not None  # since `first_config`
        held = as_overrides(self._client.held.stored.overrides).of.get(key, BackendOverride(0.0))
        own = own or BackendOverride(time.time())
        return LocalOverride(
            service=key[0], backend=key[1], admin_state=own.admin_state, weight=own.weight, added=own.added is not None,
            since=own.since, held_admin_state=held.admin_state, held_weight=held.weight,
        )  # fmt: skip

    def _local(self, reloader: Reloader) -> dict[BackendKey, BackendOverride | None]:
        """Return the overrides that were given here while no manager was connected; None: one was revoked."""
        assert self._client.held is not None  # since `first_config`
        pools, own = as_overrides(self._client.held.stored.overrides).of, reloader.overrides.of
        return {key: own.get(key) for key in own.keys() | pools.keys() if own.get(key) != pools.get(key)}

    def answer_by(self, server: ControlServer) -> None:
        """Let the control socket's server answer what managers relay."""
        self._client.answering = server.answers

    def handlers(self, own: Handlers) -> dict[Kind, Handler]:
        """Return the control socket's handlers, which refuse overrides while there is a manager, at muxes a primary."""
        return {kind: self._guarded(one) if kind in LOCAL_OVERRIDES else one for kind, one in own.items()}

    def planning(self, reloader: Reloader, slots_moved: Callable[[Any], dict[str, float]]) -> dict[Kind, Handler]:
        """Return the handler of a revision that the manager asks about; ``slots_moved`` reads the tables' plan."""

        async def plan(request: PlanRevision) -> Planned:
            text = unpack_file(request.file)
            config = await asyncio.to_thread(parse_known, text, Path("the planned revision"))
            stored = [StoredOverride.model_validate(one) for one in request.overrides]
            planned = await reloader.plan_only(config, as_overrides(stored))
            return Planned(VERSION, self._role, slots_moved(planned))

        return {PlanRevision: plan}

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: Request[Any]) -> Any:
            if self.manager and (self._role != "mux" or self.has_primary):
                reason = f"this node follows the manager {self.manager}: use --manager"
                raise OverrideError(request.command, reason)
            return await handler(request)

        return guarded

    async def _check(self, state: NodeState) -> None:
        await self._parse(state)

    async def _parse(self, state: NodeState) -> Config:
        """Return a revision's configuration; the last one is remembered, for changes of overrides only."""
        if self._parsed is None or self._parsed[0] != state.text:
            name = Path(f"revision {state.revision}")
            self._parsed = state.text, await asyncio.to_thread(parse_known, state.text.encode(), name)
        return self._parsed[1]

    def _write(self, state: NodeState) -> None:
        if state.digest == self._written:
            return
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.write_text(state.text)
            new.replace(self._path)
            self._written = state.digest
        except OSError as error:
            log.warning("%s: %s", self._path, error.strerror)
