"""`lbmux lab run`: counts the connections that events break, for the scoreboard."""

from pathlib import Path

import click

from lbmux.cli import options
from lbmux.cli.operate import completion_names as names


@click.command(name="run")
@click.argument("scenario", shell_complete=names.scenarios)
@click.argument("events", metavar="[EVENT...]", nargs=-1, shell_complete=names.events)
@click.option("--name", default="scoreboard", show_default=True, help="Prefix of the names of its labs.")
@click.option(
    "--driver", type=click.Choice(["auto", "packet", "xdp"]), default="auto", show_default=True,
    help="Driver of muxes and agents.",
)  # fmt: skip
@click.option(
    "--connections",
    type=click.IntRange(1, 5000),
    default=500,
    show_default=True,
    help="Number of long-lived connections.",
)
@click.option(
    "--short-per-s",
    type=click.FloatRange(0, 1000),
    default=50.0,
    show_default=True,
    help="New short connections per second.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 60),
    default=4.0,
    show_default=True,
    help="Seconds to watch after each event.",
)
@click.option(
    "--second-chance/--no-second-chance",
    default=True,
    show_default=True,
    help="Whether hosts return packets of connections they do not have.",
)
@click.option(
    "--flows", type=click.Choice(["changed", "all", "none"]), help="`flows` of all services, instead of the default."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.1, 240),
    default=15.0,
    show_default=True,
    help="Time limit for starting experiments.",
)
@click.option(
    "-w", "--write", type=options.PATH, help="Write the result as JSON, for `lbmux plot` and `lbmux web --scoreboard`."
)
@options.json
def command(
    scenario: str, events: tuple[str, ...], name: str, driver: str, connections: int, short_per_s: float,
    seconds: float, second_chance: bool, flows: str | None, minutes: float, write: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Trigger EVENTs in a SCENARIO under load, and count the connections that break.

    SCENARIO is a system, several separated by commas, or all.  Without EVENTs, all events of the system are triggered;
    A+B triggers two at once, A+B+C three.  The exit code is 1 if an experiment could not be run.
    """
    import json
    import time

    from lbmux.lab.scoreboard import scoreboard_report
    from lbmux.lab.scoreboard.experiment import Load, Outcome
    from lbmux.lab.scoreboard.scoreboard_runner import Failure, Setting, run

    names = _scenarios(scenario, events)
    load, start = Load(connections, short_per_s, seconds=seconds), time.monotonic()
    outcomes: list[Outcome] = []
    failures: list[Failure] = []
    setting = Setting(name, driver, second_chance, flows, 60 * minutes)
    for result in run(names, events, load, setting, lambda text: click.echo(text, err=True)):
        if isinstance(result, Outcome):
            outcomes.append(result)
            click.echo(f"  {scoreboard_report.cell(result)}", err=True)
        else:
            failures.append(result)
            click.echo(f"  {result[2]}", err=True)
    took_s = time.monotonic() - start
    document = scoreboard_report.document(outcomes, failures, load, took_s)
    text = json.dumps(document)
    if write:
        write.write_text(text + "\n")
    if as_json:
        click.echo(text)
    else:
        scoreboard_report.print_table(outcomes, failures, load, took_s)
    return 1 if failures else 0


def _scenarios(scenario: str, events: tuple[str, ...]) -> list[str]:
    """Names of scenarios; BadParameter for one, or for an event, that does not exist."""
    from lbmux.errors import LabError
    from lbmux.lab.scoreboard.scenarios import SCENARIOS
    from lbmux.lab.scoreboard.scoreboard_events import events_of

    names = list(SCENARIOS) if scenario == "all" else scenario.split(",")
    for one in names:
        if one not in SCENARIOS:
            raise click.BadParameter(f"{one!r} is not one of {', '.join(SCENARIOS)}, all", param_hint="SCENARIO")
    try:
        for event in events:
            events_of(event)
    except LabError as error:
        raise click.BadParameter(str(error), param_hint="EVENT") from error
    return names
