"""Withdrawals and announcements of VIPs that the pool's manager stores."""

import json
from typing import Any

import click

from lbmux.cli.where import Where


def order_routes(where: Where, as_json: bool, **order: Any) -> None:
    """Order an override of routes for the whole pool, or for each selected node, and print what is in force then."""
    from lbmux.cli.pool.manager_access import client
    from lbmux.manager.api_models import OverridesAnswer, RouteRequest

    nodes = [one.node for one in where.reports() if one.role != "agent"] if where.node else [None]
    manager, routes = client(*where.access), list[Any]()
    for node in nodes:
        body = RouteRequest.model_validate({**order, "node": node})
        answer = manager.post("/v1/routes", body, OverridesAnswer)
        routes += [one for one in answer.routes if one not in routes]
    if as_json:
        shown = OverridesAnswer(version=answer.version, routes=tuple(routes))
        click.echo(json.dumps({**shown.model_dump(mode="json"), "version": 1}))
        return
    for line in map(_line, routes):
        click.echo(line)
    if not routes:
        click.echo("announced as in the file")


def _line(one: Any) -> str:
    from lbmux.cli.pool.manager_access import stamp
    from lbmux.manager.route_overrides import describe_route

    return describe_route(one) + ("" if one.until is None else f", until {stamp(one.until)}")
