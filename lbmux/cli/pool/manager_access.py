"""The client with which commands reach the pool's manager."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lbmux.manager.api_client import ApiClient


def client(managers: Sequence[str], token_file: Path, manager_ca: Path) -> "ApiClient":
    """Return a client for the options of `options.manager_access`; raise SetupError if a file cannot be read."""
    from lbmux.errors import SetupError
    from lbmux.manager.api_client import ApiClient, trusting

    if not managers:
        raise click.UsageError("give the manager with --manager or LBMUX_MANAGER")
    ca, token = (_text(path) for path in (manager_ca, token_file))
    try:
        return ApiClient(managers, token, trusting(ca))
    except ValueError as error:  # ssl.SSLError is one
        raise SetupError(str(manager_ca), str(error), "give the pool's CA with --manager-ca") from error


def stamp(seconds: float) -> str:
    """Return a time as text, in UTC."""
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _text(path: Path) -> str:
    from lbmux.errors import SetupError

    try:
        return path.expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        hint = "give the files with --token-file and --manager-ca"
        raise SetupError(str(path), getattr(error, "strerror", "") or str(error), hint) from error
