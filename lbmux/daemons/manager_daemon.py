"""The manager as a process: opens the store, listens, and takes part in the elections until SIGTERM."""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

from lbmux.addresses import endpoint
from lbmux.daemons.background_task import background_task
from lbmux.daemons.exempt_configurations import exempt_configurations
from lbmux.daemons.process import notify, ready, stop_event
from lbmux.manager.guard_rails import MOST_MOVED
from lbmux.manager.http_server import Extension, HttpServer
from lbmux.manager.identity import Identity
from lbmux.manager.manager_state import Manager
from lbmux.manager.store.open_store import EtcdTls, open_store

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ManagerOptions:
    """Settings of one manager; ``advertise``: the URL under which others reach it, None for its name.

    ``most_moved``: the share of live connections that a change may move without `--force`.
    """

    store: str
    state: Path
    listen: str
    advertise: str | None = None
    etcd_tls: EtcdTls | None = None
    most_moved: float = MOST_MOVED


async def serve(options: ManagerOptions, extend: Extension) -> None:
    """Run until SIGTERM; a primary gives up its lease at once.  ``extend`` adds routes to the server."""
    identity = Identity(options.state)
    name = identity.subject.name  # without one, no store is made
    host, port = endpoint(options.listen, "0.0.0.0")
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(options.store, options.etcd_tls))
        manager = Manager(store, identity, "", most_moved=options.most_moved)
        port = await stack.enter_async_context(HttpServer(manager, extend).listening(host, port))
        manager.url = options.advertise or f"https://{name}:{port}"
        await stack.enter_async_context(manager.running())
        await stack.enter_async_context(background_task(exempt_configurations(manager)))
        stop = stop_event()
        log.info("manager %s of pool %s: %s", name, manager.pool_id, manager.url)
        ready()
        await stop.wait()
        notify("STOPPING=1")
    log.info("stopped")
