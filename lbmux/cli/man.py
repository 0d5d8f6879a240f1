"""`lbmux man`: the manual pages, generated from the commands and the configuration's schema."""

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

import click

from lbmux.cli import options
from lbmux.errors import LbmuxError

NAMES = {"lbmux": "lbmux.8", "lbmux.yaml": "lbmux.yaml.5"}
PAGES = tuple(NAMES.values())
EXAMPLE = """
muxes: [192.168.1.2, 192.168.1.3]
services:
  - name: web
    vip: 192.0.2.1
    protocol: tcp
    port: 80
    backends:
      - {name: web1, dip: 192.168.2.1}
      - {name: web2, dip: 192.168.2.2, port: 8080, weight: 2}
"""

FILES = {
    "/etc/lbmux/services.yaml": "The configuration, as the systemd units use it; see lbmux.yaml(5).",
    "/etc/lbmux/mux.env, agent.env, edge.env, manager.env": "Per-host settings for the units, as LBMUX_... variables.",
    "/var/lib/lbmux/": "Store of a manager without etcd; certificate, key and CA of a manager or node.",
    "~/.config/lbmux/token, ca.crt": "Token and CA with which commands reach the manager.",
    "/run/lbmux/mux.sock, agent.sock, edge.sock": "Control sockets (--control).",
    "/run/lbmux/mux.overrides, agent.overrides, edge.overrides": "Overrides by command; they survive a restart.",
    "/run/lbmux/mux.found": "The last health states, for the next start.",
    "/run/lbmux/agent.tables": "The flow table of an agent with the user-space driver.",
    "/run/lbmux/lab/": "State and control sockets of labs.",
    "/sys/fs/bpf/lbmux/": "Pinned programs, links and tables of the kernel drivers.",
    "~/.cache/lbmux/": "Compiled code, unless LBMUX_CACHE names another directory.",
}
EXAMPLES = {
    "Check a file, then run a mux that announces its VIPs by BGP:": (
        "lbmux config check services.yaml",
        "lbmux mux -c services.yaml -i eth0 --bgp-peer 10.0.1.1:64512",
    ),
    "Run the agent of a host that has the VIP on its loopback interface:": (
        "lbmux agent -c services.yaml -i eth0 --mode local",
    ),
    "See what a new file would move, then reload it:": ("lbmux config diff new.yaml", "lbmux reload"),
    "Make a pool, run its manager, and apply a file:": (
        "lbmux manager init",
        "lbmux manager",
        "lbmux apply services.yaml -m 'first file' --manager https://m1.example.net:7443",
    ),
    "Give a backend no new flows, and follow its health:": ("lbmux drain web1", "lbmux show health"),
    "Find out where a packet goes, and why others are dropped:": (
        "lbmux explain '198.51.100.2:40000 > 192.0.2.1:80/tcp'",
        "lbmux trace drop",
    ),
    "Diagnose this node:": ("lbmux doctor",),
    "Build a lab, and see what breaks when a mux dies:": ("lbmux lab up", "lbmux lab run ananta kill-mux"),
}


@click.command(name="man")
@click.argument("page", type=click.Choice([*NAMES]), default="lbmux")
@click.option(
    "-w", "--write", "directory", metavar="DIRECTORY", type=options.PATH, help="Write all pages to this directory."
)
def command(page: str, directory: Path | None) -> None:
    """Show the manual page lbmux(8) or lbmux.yaml(5): with man(1) on a terminal, else its source."""
    if directory is None:
        _show(pages()[NAMES[page]])
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in pages().items():
            (directory / name).write_text(text)
            click.echo(directory / name)
    except OSError as error:
        raise LbmuxError(f"{directory}: {error.strerror}") from error


def _show(text: str) -> None:
    program = shutil.which("man") if sys.stdout.isatty() else None
    if program is None:
        click.echo(text, nl=False)
    else:
        subprocess.run([program, "-l", "-"], input=text.encode(), check=False)


def pages() -> dict[str, str]:
    return dict(zip(PAGES, ("\n".join(_commands()) + "\n", "\n".join(_configuration()) + "\n"), strict=True))


def _commands() -> Iterator[str]:
    from lbmux.cli.main import COMMANDS, EXIT_CODES, group

    yield from _head("LBMUX", "8", "lbmux", "layer-4 load balancer: muxes, host agents, and a lab to try them in")
    yield ".Sh SYNOPSIS\n.Nm\n.Op Ar options\n.Ar command\n.Op Ar arguments"
    yield ".Sh DESCRIPTION"
    yield (
        ".Nm\nspreads the flows to virtual addresses (VIPs) over backends.\nA mux picks a backend for each flow and\n"
        "forwards its packets through a tunnel.\nThe agent on the backend's host decapsulates them;\n"
        "replies go directly to the client.\nAll muxes and agents share one configuration file,\n"
        "see\n.Xr lbmux.yaml 5 ."
    )
    yield ".Sh OPTIONS"
    yield from _options(group, click.Context(group))
    yield ".Sh COMMANDS"
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield from _command(command, name)
    yield ".Sh ENVIRONMENT\nAn option on the command line takes precedence over its variable.\n.Bl -tag -width Ds"
    for variable, uses in sorted(_variables(group, "lbmux").items()):
        yield f".It Ev {variable}\n{_text('; '.join(uses))}"
    yield ".El\n.Sh FILES\n.Bl -tag -width Ds"
    yield from (f".It Pa {_escaped(path)}\n{_text(what)}" for path, what in FILES.items())
    yield ".El\n.Sh EXIT STATUS\n.Bl -tag -width Ds"
    yield from (f".It {code}\n{_text(what)}" for code, what in EXIT_CODES.items())
    yield ".El\n.Sh EXAMPLES"
    yield "\n.Pp\n".join(_example(what, lines) for what, lines in EXAMPLES.items())
    yield ".Sh SEE ALSO\n.Xr lbmux.yaml 5"


def _example(what: str, lines: tuple[str, ...]) -> str:
    literal = _escaped("\n".join(lines))
    return f"{_text(what)}\n.Bd -literal -offset indent\n{literal}\n.Ed"


def _command(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]")
    yield f".Ss {_escaped(f'lbmux {name} {usage}'.strip())}"
    yield _text(command.help or "")
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            inner = command.get_command(context, below)
            assert inner is not None
            yield from _command(inner, f"{name} {below}")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    own = (one for one in command.get_params(context) if isinstance(one, click.Option) and "--help" not in one.opts)
    records = [record for option in own if (record := option.get_help_record(context)) is not None]
    if not records:
        return
    yield ".Bl -tag -width Ds"
    for names, text in records:
        yield f".It {_escaped(names)}\n{_text(text)}"
    yield ".El"


def _variables(command: click.Command, name: str) -> dict[str, list[str]]:
    """Return the options that each environment variable sets."""
    context, uses = click.Context(command, info_name=name), defaultdict[str, list[str]](list)
    for option in command.get_params(context):
        if isinstance(option.envvar, str) and not getattr(option, "hidden", False):
            uses[option.envvar].append(f"{name} {option.opts[-1]}")
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            inner = command.get_command(context, below)
            assert inner is not None
            for variable, more in _variables(inner, f"{name} {below}").items():
                uses[variable] += more
    return uses


def _configuration() -> Iterator[str]:
    from lbmux.config.models import Config

    schema = Config.model_json_schema()
    yield from _head("LBMUX.YAML", "5", "lbmux.yaml", "services of a pool of lbmux muxes and agents")
    yield ".Sh DESCRIPTION"
    yield (
        "A YAML file that all muxes and agents share.\nPer-host settings are command-line options or\n"
        "environment variables, see\n.Xr lbmux 8 .\nUnknown fields are errors;\n.Ic lbmux config check\n"
        "names them all, with file and line."
    )
    yield f".Sh EXAMPLES\nA service with two servers:\n.Bd -literal\n{_escaped(EXAMPLE.strip())}\n.Ed"
    yield from _model("the file", schema, schema)
    for name, model in schema["$defs"].items():
        if "properties" in model:
            yield from _model(name, model, schema)
    yield ".Sh SEE ALSO\n.Xr lbmux 8"


def _model(name: str, model: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    yield f".Sh {_escaped(name.upper())}"
    yield _text(model.get("description", ""))
    yield ".Bl -tag -width Ds"
    for field, about in model["properties"].items():
        needed = "" if field not in model.get("required", ()) else ", required"
        default = f", default {about['default']}" if isinstance(about.get("default"), str | int | float) else ""
        yield f".It {_escaped(field)} No ({_escaped(_kind(about, schema) + needed + default)})"
        yield _text(about.get("description", "")) or ".Pp"
    yield ".El"


def _kind(about: dict[str, Any], schema: dict[str, Any]) -> str:
    """Describe the values that a field takes, in a few words."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        target = schema["$defs"].get(name, {})
        return f"see {name.upper()}" if "properties" in target else _kind(target, schema)
    for one in ("anyOf", "oneOf", "allOf"):
        if one in about:
            return " or ".join(dict.fromkeys(_kind(part, schema) for part in about[one] if part.get("type") != "null"))
    if "enum" in about:
        return ", ".join(map(str, about["enum"]))
    if "const" in about:
        return str(about["const"])
    if about.get("type") == "array":
        return f"list of: {_kind(about.get('items', {}), schema)}"
    if "patternProperties" in about:
        (named,) = about["patternProperties"].values()
        return f"by name: {_kind(named, schema)}"
    bounds = [
        f"{word} {about[key]}"
        for key, word in (
            ("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below")
        ) if key in about
    ]  # fmt: skip
    return " ".join([str(about.get("format") or about.get("type", "anything")), *bounds])


def _head(title: str, section: str, name: str, what: str) -> Iterator[str]:
    yield f".Dd November 23, 2026\n.Dt {title} {section}\n.Os\n.Sh NAME\n.Nm {name}\n.Nd {what}"


def _text(text: str) -> str:
    """Format running text as mdoc: paragraphs, one sentence per line, and no text that looks like a request.

    A paragraph that starts with a backspace, which tells click not to wrap it, stays as it is.
    """
    page = ""
    for part in filter(None, re.split(r"\n\s*\n", cleandoc(text))):
        if part.startswith("\b"):
            page += "\n.Bd -literal\n" + _escaped(part.removeprefix("\b").strip()) + "\n.Ed"
        else:
            sentences = re.sub(r"(?<=[.!?])\s+(?=\S)", "\n", " ".join(part.split()))
            page += ("\n.Pp\n" if page else "") + _escaped(sentences)
    return page.removeprefix("\n")


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("‑", "-").replace("…", "...").replace("--", "\\-\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)
