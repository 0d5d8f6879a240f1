"""How an `LbmuxError` is shown: on standard error, and with -j also as a JSON object on standard output."""

import json
import logging

import click

from lbmux.cli import options
from lbmux.cli.logs import is_json
from lbmux.errors import LbmuxError


def show_error(error: LbmuxError) -> None:
    """Print an error within a command."""
    if click.get_current_context().meta.get(options.JSON):
        click.echo(json.dumps({"version": 1, **error.document()}))
    if is_json():
        logging.getLogger("lbmux").error("exiting: %s", error)
    else:
        for line in str(error).splitlines():
            click.echo(f"lbmux: {line}", err=True)
    logging.getLogger("lbmux").debug("traceback:", exc_info=error)
