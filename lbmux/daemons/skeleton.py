"""The skeleton of a daemon: the parts that mux, agent and edge share, and the order of their steps.

build      open sockets and tables, make every part; nothing is forwarded yet
on_config  the ordered list of what follows each commit of the tables
start      start the parts one after the other; packets come in
announce   tell the routers; the service manager knows by then that the daemon is ready
stop       withdraw the routes and drain; then the exit stack closes every part in reverse order
"""

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

from lbmux.addresses import Address
from lbmux.api.control_paths import default_path
from lbmux.api.control_server import ControlServer, Handler, Kind
from lbmux.api.refusals import refuse_requests
from lbmux.backends.override_store import OverrideStore
from lbmux.config.loader import load
from lbmux.config.models import Config
from lbmux.daemons.background_task import background_task
from lbmux.daemons.config_listeners import Listener
from lbmux.daemons.override_timer import end_overrides
from lbmux.daemons.process import notify, ready, stop_event
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.rights import warn_of_missing
from lbmux.linux.interface_addresses import addresses

if TYPE_CHECKING:
    from lbmux.daemons.manager_link import ManagerLink

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DaemonOptions:
    """Settings of one host; the configuration file is shared by all hosts."""

    config: Path
    """The file; with managers, where the current revision is written."""
    interface: str
    addresses: tuple[Address, ...] = ()
    control: Path | None = None
    managers: tuple[str, ...] = ()
    """Managers to follow, in place of a file."""
    identity: Path = Path("/var/lib/lbmux")
    """Directory of the certificate with which the daemon dials them."""


Settings = TypeVar("Settings", bound=DaemonOptions)


class Daemon(ABC, Generic[Settings]):
    """One daemon in one process; ``run_daemon`` calls its steps."""

    role: ClassVar[Literal["mux", "agent", "edge"]]
    refusals: ClassVar[Mapping[Kind, str]]
    """Control requests that this role cannot answer, with the reason."""
    serves_host: ClassVar[bool] = False
    """Whether it reports the health of its host's backends to managers."""
    rights: ClassVar[str] = ""
    """Its key in `rights.NEEDS`, if that is not the role."""

    reloader: Reloader
    """Made by ``build``."""

    def __init__(self, options: Settings, config: Config, stack: contextlib.AsyncExitStack) -> None:
        """``config``: the file's as it was read at the start; ``stack`` closes what the steps open."""
        self.options, self.config, self.stack = options, config, stack
        self.control = options.control or default_path(self.role)
        self.overrides = OverrideStore(self.control.with_suffix(".overrides"), config)
        self.link: ManagerLink | None = None
        self.stop_now = asyncio.Event()
        """Set by SIGINT and by a second SIGTERM: do not wait for traffic to stop."""

    @abstractmethod
    async def build(self) -> None: ...

    @abstractmethod
    def on_config(self) -> Sequence[Listener]: ...

    @abstractmethod
    async def start(self) -> None:
        """Calls ``listen`` when requests can be answered."""

    async def announce(self) -> None:
        return

    async def stop(self) -> None:
        return

    @abstractmethod
    def handlers(self) -> dict[Kind, Handler]:
        """Return the control socket's handlers besides those of the reloader."""

    def metrics(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Return the metrics server, where the role has one."""
        return contextlib.nullcontext()

    async def listen(self) -> None:
        """Open the control socket and the metrics server; from now on signals reload and stop the daemon."""
        handlers = {**refuse_requests(self.refusals), **self.reloader.handlers(), **self.handlers()}
        if self.link is not None:
            handlers = self.link.handlers(handlers)
        server = ControlServer(self.control, handlers)
        await self.stack.enter_async_context(server)
        if self.link is not None:
            self.link.answer_by(server)
        await self.stack.enter_async_context(self.metrics())
        await self.stack.enter_async_context(background_task(end_overrides(self.reloader)))
        self.stopping = stop_event(on_reload=self.reloader.soon, at_once=self.stop_now)


async def run_daemon(role: type[Daemon[Settings]], options: Settings) -> None:
    """Run a daemon until SIGTERM."""
    link = await _link(role, options)
    async with contextlib.AsyncExitStack() as stack:
        if link is None:
            config = await asyncio.to_thread(load, options.config)
        else:
            await stack.enter_async_context(link.running())
            config = await link.first_config()
        daemon = role(options, config, stack)
        if link is not None:
            daemon.link = link
            link.adopt(daemon.overrides)
        await daemon.build()
        warn_of_missing(role.rights or role.role)  # the rest: `build` fails without those it needs
        daemon.reloader.listeners = daemon.on_config()
        await daemon.start()
        if link is not None:
            await stack.enter_async_context(link.following(daemon.reloader))
        ready()
        await daemon.announce()
        await daemon.stopping.wait()
        notify("STOPPING=1")
        await daemon.stop()
    log.info("stopped")


async def _link(role: type[Daemon[Settings]], options: DaemonOptions) -> "ManagerLink | None":
    """Return the link to the managers; a daemon with a file does without what it loads."""
    if not options.managers:
        return None
    from lbmux.daemons.manager_link import ManagerLink

    hosts: Iterable[Address] = ()
    if role.serves_host:
        hosts = options.addresses or await asyncio.to_thread(addresses)
    return ManagerLink(options.managers, options.identity, role.role, options.config, tuple(map(str, hosts)))
