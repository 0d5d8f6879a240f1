"""The command `lbmux`: lists its subcommands, and imports a subcommand only to run it or to show its help.

`lbmux --help` therefore loads click only. This module also prints the `LbmuxError` that any command raises.
"""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from lbmux import __version__
from lbmux.errors import LbmuxError

# NumPy's linear algebra is not used; it would start a thread per core, which takes a tenth of a second.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

COMMANDS = {
    "mux": (
        "lbmux.cli.run.mux_command:command",
        "Run a mux: pick a backend for each packet and tunnel the packet to it.",
    ),
    "agent": (
        "lbmux.cli.run.agent_command:command",
        "Run a host agent: deliver tunnelled packets to the local servers.",
    ),
    "edge": ("lbmux.cli.run.edge_command:command", "Run an edge: the host announces its VIPs itself, without a mux."),
    "manager": (
        "lbmux.cli.pool.manager_command:command",
        "Run a manager, which holds the pool's configuration; make a pool.",
    ),
    "join": ("lbmux.cli.pool.join_command:command", "Join a pool: get a certificate from its manager."),
    "apply": ("lbmux.cli.pool.apply_command:apply", "Apply a configuration file to the pool."),
    "rollback": ("lbmux.cli.pool.apply_command:rollback", "Restore an earlier configuration of the pool."),
    "reload": ("lbmux.cli.operate.reload_command:command", "Reload the configuration of a running mux or agent."),
    "drain": (
        "lbmux.cli.operate.backend_command:drain",
        "Drain a backend: it keeps its flows and gets no new ones.",
    ),
    "disable": ("lbmux.cli.operate.backend_command:disable", "Disable a backend at once; its flows move to others."),
    "enable": ("lbmux.cli.operate.backend_command:enable", "Enable a drained, disabled or removed backend again."),
    "weight": ("lbmux.cli.operate.backend_command:weight", "Change a backend's share of new flows."),
    "add": ("lbmux.cli.operate.backend_command:add", "Add a backend to a service."),
    "remove": ("lbmux.cli.operate.backend_command:remove", "Remove a backend when its last flow has ended."),
    "withdraw": (
        "lbmux.cli.operate.announce_command:withdraw",
        "Withdraw the VIPs of a mux; it still forwards packets that arrive.",
    ),
    "announce": (
        "lbmux.cli.operate.announce_command:announce",
        "Announce the VIPs of a mux again after `lbmux withdraw`.",
    ),
    "parole": (
        "lbmux.cli.operate.parole_command:command",
        "Let a flooded VIP back that a mux has made a black hole.",
    ),
    "show": (
        "lbmux.cli.inspect.show_pool_command:command",
        "Show services, backends, flows and counters of a mux or agent, or the pool's revisions.",
    ),
    "explain": (
        "lbmux.cli.inspect.explain_command:command",
        "Explain what a mux does with a packet, step by step.",
    ),
    "trace": (
        "lbmux.cli.inspect.trace_command:command",
        "Show frames of a running mux or agent, with steps and verdicts.",
    ),
    "capture": (
        "lbmux.cli.inspect.capture_command:command",
        "Write frames of a running mux or agent to a file for Wireshark.",
    ),
    "top": ("lbmux.cli.inspect.top_command:command", "Show rates of services, backends and flows, live."),
    "doctor": (
        "lbmux.cli.inspect.doctor_command:command",
        "Diagnose this node and suggest fixes.",
    ),
    "web": ("lbmux.cli.run.web_command:command", "Serve a web page that shows the pool live."),
    "detach": ("lbmux.cli.operate.detach_command:command", "Detach lbmux programs from an interface."),
    "config": (
        "lbmux.cli.operate.config_command:command",
        "Check a configuration file, compare two, make or import one, print the pool's, or print the schema.",
    ),
    "steer": (
        "lbmux.cli.operate.steer_apply_command:command",
        "Compute which PoP each group of clients should use, from measured latencies.",
    ),
    "replay": ("lbmux.cli.lab.replay_command:command", "Send a capture through a mux's data path or to an interface."),
    "craft": (
        "lbmux.cli.lab.craft_command:command",
        "Create a capture from scapy expressions, for replay and the lab.",
    ),
    "simulate": (
        "lbmux.cli.lab.simulate_command:command",
        "Simulate hashing and flow tracking: figures of papers, and changes of your own file.",
    ),
    "unit": ("lbmux.cli.run.unit_command:command", "Print a systemd unit for a mux or an agent."),
    "lab": ("lbmux.cli.lab.lab_command:command", "Build and use a test network of namespaces."),
    "plot": (
        "lbmux.cli.lab.plot_command:command",
        "Plot results of `make bench`, `lbmux lab run` or `lbmux simulate`.",
    ),
    "completion": ("lbmux.cli.completion:command", "Print a shell completion script."),
    "man": ("lbmux.cli.man:command", "Show or write the manual pages."),
}
"""The location of each command, and its line in `lbmux --help`."""

NEW_OBJECTS = 200_000
"""How many new objects start a garbage collection (Python's default is 700). Imports create objects, but no garbage."""
INTERRUPTED = 130
EXIT_CODES = {
    0: "success",
    1: "an error, or a check that failed; a message gives the reason",
    2: "wrong usage",
    3: "an invalid configuration (config check)",
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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LbmuxError as error:
            from lbmux.cli.shown_error import show_error

            show_error(error)
            return 1

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: " + "; ".join(f"{code} {what}" for code, what in EXIT_CODES.items()) + ".",
)  # fmt: skip
@click.version_option(__version__, prog_name="lbmux")
@click.option("-v", "--verbose", is_flag=True, help="Log more, and print tracebacks of errors.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, envvar="LBMUX_LOG_FORMAT",
    show_envvar=True, help="Format of log lines.",
)  # fmt: skip
def group(verbose: bool, log_format: str) -> None:
    """A layer-4 load balancer: muxes, host agents, and a lab to try them in."""
    from lbmux.cli.logs import set_up

    set_up(log_format, verbose)
    if sys.stderr.isatty():  # daemons always log it
        from lbmux.codegen import progress

        progress.announce()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with one of EXIT_CODES."""
    gc.set_threshold(NEW_OBJECTS)  # avoids 350 collections during a daemon's start; restored when the daemon is ready
    status = run(arguments)
    gc.freeze()  # the interpreter's last collection would walk all imported objects
    sys.exit(status)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, which is the integer it returns, if any."""
    try:
        status = group.main(arguments, prog_name="lbmux", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    main()
