"""`lbmux completion`: what a shell evaluates so that it completes commands, options and their values."""

import click

SHELLS = ("bash", "zsh", "fish")


@click.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script that completes lbmux's commands and options in SHELL.

    For good: `eval "$(lbmux completion bash)"` in ~/.bashrc, likewise zsh in ~/.zshrc; in fish
    `lbmux completion fish > ~/.config/fish/completions/lbmux.fish`.
    """
    from click.shell_completion import get_completion_class

    from lbmux.cli.main import group

    kind = get_completion_class(shell)
    assert kind is not None  # click has these three
    click.echo(kind(group, {}, "lbmux", "_LBMUX_COMPLETE").source())
