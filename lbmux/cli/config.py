"""`lbmux config check FILE` and `lbmux config schema`."""

import json
from pathlib import Path

import click

from lbmux.errors import ConfigError

NOT_USABLE = 3


@click.group(name="config")
def command() -> None:
    """Check a configuration file, or print its schema."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> int:
    """Print everything that is wrong with FILE as `FILE:LINE: field: message`.

    Exit code 0 if it can be used, 3 if not.
    """
    from lbmux.control.config_file import load

    try:
        config = load(file)
    except ConfigError as error:
        # On standard output: the problems are what was asked for, and go through a pipe.
        for line in error.lines():
            click.echo(line)
        return NOT_USABLE
    backends = sum(len(service.backends) for service in config.services)
    click.echo(f"{file}: fine: {_count(len(config.services), 'service')}, {_count(backends, 'backend')}")
    return 0


@command.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors and other tools."""
    from lbmux.control.config import Config

    click.echo(json.dumps(Config.model_json_schema(), indent=2))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
