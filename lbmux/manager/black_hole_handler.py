"""The manager's side of muxes' black holes: they are events, and all muxes withdraw a VIP where one needs that."""

from lbmux.addresses import Address
from lbmux.bgp.announced import UNCHANGED, Announced
from lbmux.config.field_types import Model
from lbmux.config.models import Config
from lbmux.manager.api_handlers import Call
from lbmux.manager.api_models import BlackHoleAnswer, BlackHoleRequest
from lbmux.manager.documents import RouteOverride
from lbmux.manager.route_overrides import RouteOrder
from lbmux.manager.tokens import AccessError

EVERYWHERE = {"withdraw": Announced(is_held=True), "blackhole": Announced(is_black_hole=True)}
"""What all muxes do with the VIP, by the file's `black_hole.upstream`."""


async def black_hole(call: Call) -> Model:
    """Record that a VIP became a black hole at a mux, or is none any more, and have all muxes follow if need be."""
    assert call.node is not None  # the endpoint asks for a certificate
    body: BlackHoleRequest = call.body
    report = call.manager.nodes.get(call.node.name)
    if report is None or report.role == "agent":
        raise AccessError(f"node {call.node.name} is not a mux that is connected")
    config = call.manager.state.config
    if config is None or body.vip not in {service.vip for service in config.services}:
        raise AccessError(f"no service has the VIP {body.vip}", 404)
    what = "is a black hole" if body.begins else "is no longer a black hole"
    if body.upstream_s is not None:
        what = "has to be dropped upstream"
    await call.manager.pool.record("black_hole", call.caller, f"VIP {body.vip} {what}: {body.reason}")
    return BlackHoleAnswer(vip=body.vip, upstream=await _drop_upstream(call, config, body))


async def _drop_upstream(call: Call, config: Config, body: BlackHoleRequest) -> bool:
    """Have all muxes follow; return whether they do.  The black hole of one mux ends nothing that another ordered."""
    pool, now = call.manager.pool, call.manager.clock()
    of_vip = [one for one in pool.state.stored.routes if one.vip in (None, body.vip)]
    ordered_here = [one for one in of_vip if (one.node, one.by) == (None, call.caller.name)]
    wanted = EVERYWHERE.get(config.black_hole.upstream)
    if not body.begins and of_vip and of_vip == ordered_here:
        await pool.announce(RouteOrder(body.vip, None, UNCHANGED), call.caller)
    if body.upstream_s is None or wanted is None or of_vip or not _remain(config, pool.state.stored.routes, body.vip):
        return False
    order, reason = RouteOrder(body.vip, None, wanted), f"flooded at {call.caller.name}"
    await pool.announce(order, call.caller, reason, now + body.upstream_s)
    return True


def _remain(config: Config, routes: tuple[RouteOverride, ...], but: Address) -> bool:
    """Return whether the muxes announce another VIP."""
    gone = {one.vip for one in routes if one.announcement.held or one.announcement.black_hole}
    return None not in gone and bool({service.vip for service in config.services} - gone - {but})
