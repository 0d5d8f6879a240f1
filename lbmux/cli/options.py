"""Options that several commands share, with their environment variables."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import click

from lbmux.addresses import Address, endpoint

PATH = click.Path(path_type=Path)


class AddressType(click.ParamType[Address]):
    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, IPv4Address | IPv6Address):
            return value
        try:
            return ip_address(value)
        except ValueError:
            self.fail(f"{value!r} is not an IPv4 or IPv6 address", param, ctx)


ADDRESS = AddressType()


def _endpoint(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        try:
            endpoint(value, "")
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from error
    return value


config = click.option(
    "-c", "--config", type=PATH, required=True, envvar="LBMUX_CONFIG", show_envvar=True, help="Configuration file."
)
interface = click.option(
    "-i", "--interface", required=True, envvar="LBMUX_INTERFACE", show_envvar=True, help="Network interface."
)
control = click.option(
    "--control", type=PATH, envvar="LBMUX_CONTROL", show_envvar=True, help="Control socket. [default: /run/lbmux/]"
)
json = click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
metrics = click.option(
    "--metrics", metavar="[HOST:]PORT", envvar="LBMUX_METRICS", show_envvar=True, callback=_endpoint,
    help="Serve Prometheus metrics at /metrics on this address. [default HOST: 127.0.0.1]",
)  # fmt: skip
health_token = click.option(
    "--health-token", type=PATH, envvar="LBMUX_HEALTH_TOKEN", show_envvar=True,
    help="File with the token that authenticates agents and muxes to each other (`health.by: agent`).",
)  # fmt: skip
