"""The command `lbmux`: names its subcommands, and imports one only when it is run or asked for its help.

So `lbmux --help` costs no more than click. What a command raises as `LbmuxError` is said here, for all.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from lbmux import __version__
from lbmux.errors import LbmuxError

# NumPy's linear algebra, of which nothing is used here, would start a thread for each core: a tenth of a second.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

COMMANDS = {
    "mux": ("lbmux.cli.run.mux_command:command", "Run a mux: pick a backend for each packet and tunnel it there."),
    "agent": ("lbmux.cli.run.agent_command:command", "Run a host agent: take tunnelled packets to the server."),
    "edge": ("lbmux.cli.run.edge_command:command", "Run an edge: no mux, the host announces its VIPs itself."),
    "reload": ("lbmux.cli.operate.reload_command:command", "Have a running mux or agent load its configuration anew."),
    "drain": (
        "lbmux.cli.operate.backend_command:drain",
        "Give a backend no new flows, and leave it those that it has.",
    ),
    "disable": ("lbmux.cli.operate.backend_command:disable", "Take a backend out at once."),
    "enable": ("lbmux.cli.operate.backend_command:enable", "Have a drained, disabled or removed backend serve again."),
    "weight": ("lbmux.cli.operate.backend_command:weight", "Give a backend another share of the new flows."),
    "add": ("lbmux.cli.operate.backend_command:add", "Add a backend to a service."),
    "remove": ("lbmux.cli.operate.backend_command:remove", "Remove a backend, once its last flow has gone."),
    "withdraw": (
        "lbmux.cli.operate.announce_command:withdraw",
        "Have a mux leave its routers, and forward on what still comes.",
    ),
    "announce": (
        "lbmux.cli.operate.announce_command:announce",
        "Have a mux that was withdrawn announce its VIPs again.",
    ),
    "show": (
        "lbmux.cli.inspect.show_command:command",
        "Show services, backends, flows, counters and more of a running mux or agent.",
    ),
    "explain": (
        "lbmux.cli.inspect.explain_command:command",
        "Say what a mux does with a packet, step by step, and why.",
    ),
    "trace": (
        "lbmux.cli.inspect.trace_command:command",
        "Show frames that a running mux gets, and what becomes of them.",
    ),
    "capture": ("lbmux.cli.inspect.capture_command:command", "Write frames of a running mux to a file for Wireshark."),
    "top": ("lbmux.cli.inspect.top_command:command", "Show what a mux does, second by second."),
    "doctor": (
        "lbmux.cli.inspect.doctor_command:command",
        "Look at what goes wrong in practice, and say how to mend it.",
    ),
    "web": ("lbmux.cli.run.web_command:command", "Serve a page about a pool: traffic, services, tables, explanations."),
    "detach": ("lbmux.cli.operate.detach_command:command", "Take the kernel's programs off an interface."),
    "config": (
        "lbmux.cli.operate.config_command:command",
        "Check a configuration file, compare two, or print the schema.",
    ),
    "replay": ("lbmux.cli.lab.replay_command:command", "Send a capture through the data path of a mux."),
    "craft": ("lbmux.cli.lab.craft_command:command", "Make a capture from scapy expressions, for replay and the lab."),
    "unit": ("lbmux.cli.run.unit_command:command", "Print a systemd unit for a mux or an agent."),
    "lab": ("lbmux.cli.lab.lab_command:command", "Build a network of namespaces to try it all in."),
    "plot": ("lbmux.cli.lab.plot_command:command", "Draw results of the bench or of `lab run`."),
    "completion": ("lbmux.cli.completion:command", "Print what makes a shell complete lbmux's commands."),
    "man": ("lbmux.cli.man:command", "Show the manual, or write its pages."),
}
"""Where each command is, and its line in `lbmux --help`."""

INTERRUPTED = 130
EXIT_CODES = {
    0: "fine",
    1: "cannot run, or what was looked at is not as it should be; one line says why",
    2: "wrong usage",
    3: "a configuration that is not usable (config check)",
    INTERRUPTED: "interrupted",
}


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: " + "; ".join(f"{code} {what}" for code, what in EXIT_CODES.items()) + ".",
)  # fmt: skip
@click.version_option(__version__, prog_name="lbmux")
@click.option("-v", "--verbose", is_flag=True, help="Log more, and show where an error comes from.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, envvar="LBMUX_LOG_FORMAT",
    show_envvar=True, help="How events are logged, a line each.",
)  # fmt: skip
def group(verbose: bool, log_format: str) -> None:
    """A layer-4 load balancer: mux, host agent, and a lab to try them in."""
    from lbmux.cli.logs import set_up

    set_up(log_format, verbose)
    if sys.stderr.isatty():  # a daemon announces it in any case
        from lbmux.codegen import progress

        progress.announce()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit, by one of EXIT_CODES."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command. A command that returns an integer has its own."""
    try:
        status = group.main(arguments, prog_name="lbmux", standalone_mode=False)
    except LbmuxError as error:
        return _say(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _say(error: LbmuxError) -> int:
    import logging

    from lbmux.cli.logs import is_json

    if is_json():
        logging.getLogger("lbmux").error("ends: %s", error)
    else:
        for line in str(error).splitlines():
            click.echo(f"lbmux: {line}", err=True)
    logging.getLogger("lbmux").debug("raised here:", exc_info=error)
    return 1


if __name__ == "__main__":
    main()
