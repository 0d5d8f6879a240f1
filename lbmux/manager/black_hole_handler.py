"""The manager's side of muxes' black holes: they are among the pool's events."""

from lbmux.config.field_types import Model
from lbmux.manager.api_handlers import Call
from lbmux.manager.api_models import BlackHoleAnswer, BlackHoleRequest
from lbmux.manager.tokens import AccessError


async def black_hole(call: Call) -> Model:
    """Record that a VIP became a black hole at a mux, or is none any more."""
    assert call.node is not None  # the endpoint asks for a certificate
    body: BlackHoleRequest = call.body
    report = call.manager.nodes.get(call.node.name)
    if report is None or report.role == "agent":
        raise AccessError(f"node {call.node.name} is not a mux that is connected")
    config = call.manager.state.config
    if config is None or body.vip not in {service.vip for service in config.services}:
        raise AccessError(f"no service has the VIP {body.vip}", 404)
    became = "is a black hole" if body.begins else "is no longer a black hole"
    await call.manager.pool.record("black_hole", call.caller, f"VIP {body.vip} {became}: {body.reason}")
    return BlackHoleAnswer(vip=body.vip)
