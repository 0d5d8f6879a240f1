"""`lbmux completion`: prints a script with which a shell completes commands, options and their values."""

import click

SHELLS = ("bash", "zsh", "fish")


@click.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script that completes lbmux's commands and options in SHELL.

    To install it, add `eval "$(lbmux completion bash)"` to ~/.bashrc, or the same with zsh to ~/.zshrc. For fish, run
    `lbmux completion fish > ~/.config/fish/completions/lbmux.fish`.
    """
    from click.shell_completion import get_completion_class

    from lbmux.cli.main import group

    kind = get_completion_class(shell)
    assert kind is not None  # click supports all SHELLS
    click.echo(kind(group, {}, "lbmux", "_LBMUX_COMPLETE").source())
