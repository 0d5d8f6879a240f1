"""The server of `lbmux web`: the page of some muxes (pool_site), with explanations and tables (dry_runs)."""

import logging
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from lbmux.api.channel import ControlTarget
from lbmux.daemons.process import ready, stop_event
from lbmux.errors import SetupError
from lbmux.tools.web.dry_runs import DryRuns
from lbmux.tools.web.page_actions import Visitor, manager_of
from lbmux.tools.web.pool_site import INTERVAL_S, MOST_PROPOSED_BYTES, PoolSite
from lbmux.tools.web.web_access import add_headers, guard

log = logging.getLogger(__name__)

READ_ONLY = "this page is read-only: start `lbmux web` with --actions"


class Site(PoolSite):
    """The page of the muxes behind these sockets.

    ``actions``: whether visitors may change the pool (tools.web.page_actions); without it the page is read-only.
    """

    def __init__(
        self, controls: Sequence[ControlTarget], scoreboard: Path | None = None, interval_s: float = INTERVAL_S, *,
        actions: bool = False,
    ) -> None:  # fmt: skip
        manager = manager_of(controls)
        visitor = Visitor(
            can_override=actions, can_apply=actions and manager is not None, manager=manager, may_not=READ_ONLY
        )
        super().__init__(lambda: controls, lambda request: visitor, scoreboard, interval_s, explains=True)

    def application(self, token: str | None) -> web.Application:
        application = web.Application(middlewares=[guard(token)], client_max_size=MOST_PROPOSED_BYTES)
        application.on_response_prepare.append(add_headers)
        application.add_routes([*self.routes(), *DryRuns(self.poller).routes()])
        return application


async def serve(site: Site, host: str, port: int, token: str | None) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = stop_event()
    runner = web.AppRunner(site.application(token), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            where, hint = f"{host} port {port}", "give another with --host and --port"
            raise SetupError(where, error.strerror or str(error), hint) from None
        at = runner.addresses[0]
        host_text = f"[{at[0]}]" if ":" in at[0] else at[0]
        log.info("http://%s:%d/%s", host_text, at[1], f"?token={token}" if token else "")
        ready()
        await stop.wait()
    finally:
        await runner.cleanup()
