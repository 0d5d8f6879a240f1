"""Options that several commands share, with their environment variables."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from lbmux.addresses import Address, endpoint

PATH = click.Path(path_type=Path)
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


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


def check_endpoint(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse an option that is not `[HOST:]PORT`."""
    if value is not None:
        try:
            endpoint(value, "")
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from error
    return value


config = click.option(
    "-c", "--config", type=PATH, envvar="LBMUX_CONFIG", show_envvar=True,
    help="Configuration file; alternatively, use --manager.",
)  # fmt: skip
interface = click.option(
    "-i", "--interface", required=True, envvar="LBMUX_INTERFACE", show_envvar=True, help="Network interface."
)
control = click.option(
    "--control", type=PATH, envvar="LBMUX_CONTROL", show_envvar=True, help="Control socket. [default: /run/lbmux/]"
)
managers = click.option(
    "--manager", "managers", metavar="URL", multiple=True, envvar="LBMUX_MANAGER", show_envvar=True,
    help="Manager, https://HOST[:PORT]; may be repeated: if one does not answer, the next is tried. "
    "[default PORT: 7443]",
)  # fmt: skip
token_file = click.option(
    "--token-file", type=PATH, default="~/.config/lbmux/token", show_default=True, envvar="LBMUX_TOKEN_FILE",
    show_envvar=True, help="File with the token for the manager.",
)  # fmt: skip
manager_ca = click.option(
    "--manager-ca", type=PATH, default="~/.config/lbmux/ca.crt", show_default=True, envvar="LBMUX_MANAGER_CA",
    show_envvar=True, help="Certificate of the pool's CA.",
)  # fmt: skip
state = click.option(
    "--state", type=PATH, default="/var/lib/lbmux", show_default=True, envvar="LBMUX_STATE", show_envvar=True,
    help="Directory of this node's certificate and key.",
)  # fmt: skip


def node(command: Decorated) -> Decorated:
    """Add the options that say where a daemon has its configuration from; ``source`` takes them."""
    return config(managers(state(command)))


def source(role: str, path: Path | None, urls: tuple[str, ...], directory: Path) -> dict[str, Any]:
    """Return the daemon's settings for the options of ``node``: a file, or managers.

    An option on the command line takes precedence over a variable of the other kind.
    """
    is_explicit = click.get_current_context().get_parameter_source
    if path is not None and urls and is_explicit("config") != is_explicit("managers"):
        if is_explicit("config") is ParameterSource.COMMANDLINE:
            urls = ()
        else:
            path = None
    if (path is None) == (not urls):
        raise click.UsageError("give either a file with -c or the managers with --manager")
    return {"config": path or directory / f"{role}.yaml", "managers": urls, "identity": directory}


def manager_access(command: Decorated) -> Decorated:
    """Add the options with which a command reaches a manager; ``manager_access.client`` takes them."""
    return managers(token_file(manager_ca(command)))


class DurationType(click.ParamType[float]):
    """A time span with its unit, in seconds: 30s, 10m, 2h, 7d."""

    name = "duration"
    units = MappingProxyType({"s": 1, "m": 60, "h": 3600, "d": 86400})

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        number, unit = str(value)[:-1], str(value)[-1:]
        if not number.isdecimal() or unit not in self.units or not 0 < int(number) * self.units[unit] <= 366 * 86400:
            self.fail(f"{value!r} is not a time such as 30s, 10m, 2h or 7d, of at most 366d", param, ctx)
        return float(int(number) * self.units[unit])


DURATION = DurationType()
JSON = "lbmux.json"
"""The key in a context's ``meta`` that says whether the command prints JSON."""


def json_of(text: str) -> Callable[[Decorated], Decorated]:
    """Return the option -j with this help.  With it, errors are printed as JSON too (lbmux.cli.shown_error)."""
    return click.option("-j", "--json", "as_json", is_flag=True, help=text, callback=_remember)


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    ctx.meta[JSON] = value
    return value


json = json_of("Print JSON.")
xdp_mode = click.option(
    "--xdp-mode", type=click.Choice(["auto", "native", "generic"]), default="auto", show_default=True,
    help="How XDP is attached; auto: native, but generic on a veth, whose peer may not accept native frames.",
)  # fmt: skip
metrics = click.option(
    "--metrics", metavar="[HOST:]PORT", envvar="LBMUX_METRICS", show_envvar=True, callback=check_endpoint,
    help="Serve Prometheus metrics at /metrics on this address. [default HOST: 127.0.0.1]",
)  # fmt: skip
health_token = click.option(
    "--health-token", type=PATH, envvar="LBMUX_HEALTH_TOKEN", show_envvar=True,
    help="File with the token that authenticates agents and muxes to each other (`health.by: agent`).",
)  # fmt: skip
