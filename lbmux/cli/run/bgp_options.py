"""BGP options: peers, attributes, timers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lbmux.cli import options


def _renamed(context: click.Context, option: click.Parameter, is_given: bool) -> None:
    if is_given:
        raise click.UsageError(
            "--bgp-withdraw-without-backends (LBMUX_BGP_WITHDRAW_WITHOUT_BACKENDS) was renamed to"
            " `on_no_backend: withdraw`, a key of a service in the configuration file"
        )


LIST = "May be repeated; in the environment, separate values with spaces."
ENVIRONMENT: dict[str, Any] = {"show_envvar": True}
DECORATORS = (
    click.option(
        "--bgp-peer", "bgp_peers", multiple=True, metavar="ADDR[:AS]", envvar="LBMUX_BGP_PEER", **ENVIRONMENT,
        help=f"A router to announce the VIPs to, IPv6 as [ADDR]:AS; default AS 64512. {LIST}",
    ),
    click.option(
        "--bgp-as", type=click.IntRange(1, 2**32 - 1), default=65001, show_default=True, envvar="LBMUX_BGP_AS",
        **ENVIRONMENT, help="The mux's own AS.",
    ),
    click.option(
        "--bgp-address", "bgp_addresses", type=options.ADDRESS, multiple=True, envvar="LBMUX_BGP_ADDRESS",
        **ENVIRONMENT, help="Own address in sessions, and next hop; one per family. [default: as --address]",
    ),
    click.option(
        "--bgp-speaker", type=click.Choice(["exabgp", "bird"]), default="exabgp", show_default=True,
        envvar="LBMUX_BGP_SPEAKER", **ENVIRONMENT, help="BGP speaker; BFD needs bird.",
    ),
    click.option(
        "--bgp-hold-time", type=click.IntRange(3, 65535), default=3, show_default=True, metavar="SECONDS",
        envvar="LBMUX_BGP_HOLD_TIME", **ENVIRONMENT, help="Hold time of sessions.",
    ),
    click.option(
        "--bgp-stall", type=click.FloatRange(0.2, 3600), default=5.0, show_default=True, metavar="SECONDS",
        envvar="LBMUX_BGP_STALL", **ENVIRONMENT,
        help="How long a mux keeps its routes while its packet loop is stalled but its kernel program forwards.",
    ),
    click.option(
        "--bgp-password-file", type=options.PATH, envvar="LBMUX_BGP_PASSWORD_FILE", **ENVIRONMENT,
        help="File with the TCP MD5 password of sessions.",
    ),
    click.option(
        "--bgp-community", "bgp_communities", multiple=True, metavar="AS:VALUE", envvar="LBMUX_BGP_COMMUNITY",
        **ENVIRONMENT, help=f"Community of announced routes. {LIST}",
    ),
    click.option(
        "--bgp-med", type=click.IntRange(0, 2**32 - 1), envvar="LBMUX_BGP_MED", **ENVIRONMENT,
        help="Metric (MED) of announced routes.",
    ),
    click.option(
        "--bgp-withdraw-without-backends", is_flag=True, envvar="LBMUX_BGP_WITHDRAW_WITHOUT_BACKENDS", hidden=True,
        expose_value=False, callback=_renamed,
    ),
    click.option("--bfd", is_flag=True, envvar="LBMUX_BGP_BFD", **ENVIRONMENT, help="Use BFD (bird only)."),
    click.option(
        "--bfd-interval-ms", type=click.IntRange(10, 10000), default=50, show_default=True,
        envvar="LBMUX_BGP_BFD_INTERVAL_MS", **ENVIRONMENT, help="Interval of BFD packets.",
    ),
    click.option(
        "--bfd-multiplier", type=click.IntRange(2, 50), default=3, show_default=True,
        envvar="LBMUX_BGP_BFD_MULTIPLIER", **ENVIRONMENT, help="Missed BFD packets before a peer is down.",
    ),
    click.option(
        "--drain", type=click.FloatRange(0, 3600), metavar="SECONDS", envvar="LBMUX_BGP_DRAIN", **ENVIRONMENT,
        help="On SIGTERM, a mux withdraws its routes and keeps forwarding until no packet arrives for half a second, at"
        " most for this time; an edge waits for this time. [default: 30; edge: 1]",
    ),
)  # fmt: skip


def bgp(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all BGP options to a command, which passes their values to ``settings``."""
    for decorate in reversed(DECORATORS):
        command = decorate(command)
    return command


def settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a daemon's Options that the BGP options set."""
    from lbmux.bgp.bgp_settings import Bgp, Peer, parse_community

    if options["bfd"] and options["bgp_speaker"] != "bird":
        raise click.UsageError("--bfd needs --bgp-speaker bird")
    try:
        peers = tuple(Peer.parse(text) for text in options["bgp_peers"])
        communities = tuple(parse_community(text) for text in options["bgp_communities"])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    own = {address.version: address for address in options["bgp_addresses"]}
    bgp = Bgp(
        own.get(4), peers, options["bgp_as"], options["bgp_hold_time"],
        _password(options["bgp_password_file"]), communities, options["bgp_med"], options["bfd"],
        options["bfd_interval_ms"], options["bfd_multiplier"],
        local6=own.get(6), stall_s=options["bgp_stall"],
    )  # fmt: skip
    drain = {} if options["drain"] is None else {"drain_s": options["drain"]}
    return {"bgp": bgp if peers else None, "bgp_speaker": options["bgp_speaker"], **drain}


def _password(path: Path | None) -> str:
    from lbmux.errors import SetupError

    if path is None:
        return ""
    try:
        with path.open() as file:
            text = file.read(4096).strip()
    except OSError as error:
        hint = "give a file that exists and that this user may read"
        raise SetupError(f"password file {path}", error.strerror or str(error), hint) from error
    if not 0 < len(text) <= 80 or not text.isprintable() or not text.isascii() or set(text) & set('"\\;{}#'):
        reason = 'a password has 1 to 80 ASCII characters, none of " \\ ; { } #'
        raise SetupError(f"password file {path}", reason, "agree on another one with the peer")
    return text
