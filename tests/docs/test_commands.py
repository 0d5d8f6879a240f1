"""Each command of the documentation: it parses, and those of README and docs/ run in a lab, except PARSED_ONLY."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bench.__main__ import LONG, OTHERS, RELEASE
from lbmux.cli.main import group
from lbmux.cli.man import EXAMPLES
from lbmux.config.loader import load
from tests.docs.pages import PAGES, ROOT, blocks, commands, inline

TIMEOUT_S = 180
"""Time limit of one command: those that forward compile first, which is slow on a busy machine."""
PARSED_ONLY = {
    "make demo": "a minute; tests/lab/test_demo.py runs the demo",
    "make test": "runs this test",
    "make check": "a minute; CI runs it",
    "make fast": "runs tests",
    "make bench": "many minutes",
    ".venv/bin/python -m bench": "many minutes; tests/bench runs parts of it",
    ".venv/bin/python -m bench.beside": "needs another commit, and takes minutes",
    ".venv/bin/python -m lbmux.tools.metrics_page": "writes into the tree; test_metrics.py compares what it prints",
    "lbmux mux": "a daemon; the lab runs it",
    "lbmux agent": "a daemon; the lab runs it",
    "lbmux edge": "a daemon; the lab runs it",
    "lbmux manager": "daemons and their pool; tests/cli/pool runs them",
    "lbmux apply": "needs a manager; tests/cli/pool runs it",
    "lbmux rollback": "needs a manager; tests/cli/pool runs it",
    "lbmux join": "needs a manager; tests/cli/pool runs it",
    "lbmux config get": "needs a manager; tests/cli/pool runs it",
    "lbmux config diff 3": "needs a manager; tests/cli/pool runs it",
    "lbmux show revisions": "needs a manager; tests/cli/pool runs it",
    "lbmux show events": "needs a manager; tests/cli/pool runs it",
    "lbmux show maps": "needs a manager; tests/cli/operate/test_steer_apply_command.py runs it",
    "lbmux show nodes": "needs a manager; tests/daemons runs it",
    "lbmux show muxes": "needs a manager; tests/cli/test_where.py runs it",
    "lbmux show flows --node": "needs a manager; tests/cli/test_where.py runs it",
    "lbmux withdraw --node": "needs a manager; tests/cli/pool runs it",
    "lbmux withdraw 192.0.2.1 --for": "needs a manager; tests/cli/pool runs it",
    "lbmux show overrides": "needs a manager; tests/cli/pool runs it",
    "lbmux drain --host": "needs a manager; tests/cli/pool runs it",
    "lbmux drain web1 --for": "needs a manager; tests/cli/pool runs it",
    "lbmux show round-trips": "needs an agent; tests/daemons/test_round_trip_handler.py runs it",
    "lbmux steer": "needs files of measurements; tests/cli/operate/test_steer_command.py has some",
    "lbmux config import": "needs files of other load balancers; tests/tools/import_config reads some",
    "lbmux web": "a daemon; tests/daemons and tests/tools run it",
    "lbmux trace": "waits for dropped packets; the tutorial's test runs it",
    "lbmux capture": "waits for packets; the tutorial's test runs it",
    "lbmux lab chaos": "a minute; tests/lab/chaos/test_chaos.py runs it",
    "lbmux lab run": "over 10 s an event; tests/lab/test_scoreboard.py runs it",
    "lbmux simulate balance": "half a minute; tests/cli runs it in small",
    "lbmux simulate resilience": "two minutes; tests/cli runs it in small",
    "lbmux simulate jet": "a minute; tests/cli runs it in small",
    "lbmux simulate flows": "minutes; tests/cli runs it in small",
    "lbmux lab exec client bash": "needs a lab with managers; tests/lab/test_scoreboard_managers.py has one",
    "lbmux lab exec users1": "needs facebook-global; tests/lab/test_facebook_global.py sends such requests",
    "lbmux lab wan": "runs until it is interrupted; tests/lab/test_wan_node.py runs it",
    "lbmux lab up": "these run in a lab; the tutorial's test brings up another",
    "lbmux plot": "needs results of an experiment or the bench; tests/cli runs it",
    "ethtool": "needs a network card with several queues",
    "systemctl": "changes this machine",
    "grep": "looks for a network card",
    "echo": "changes this machine's interrupts",
}
"""Commands by how they begin: why they do not run here."""
SHORTENED = {"lbmux top": "lbmux top --once"}
"""Commands that do not end by themselves, in the form that runs."""
NODES = {"lbmux doctor": "mux1", "lbmux detach": "mux1", "ip": "router"}
"""Commands that run in a node of the lab."""
HERE = {"web1": "h1", "/run/lbmux/other.sock": "/run/lbmux/lab/{name}/mux2.sock"}
"""Names in the documentation, and what they are in the lab."""
ALL = [pytest.param(command, id=f"{page.stem}: {command}") for page in PAGES for command in commands(page.read_text())]


def begins(command: str, start: str) -> bool:
    return command == start or command.startswith(f"{start} ")


def resolved(words: list[str]) -> tuple[click.Command, str, list[str]]:
    """The command that words name, and the words behind its name."""
    command: click.Command = group
    name = words.pop(0)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        subcommand = command.get_command(click.Context(command), name)
        assert subcommand is not None, f"no command {name}"
        command = subcommand
    return command, name, words


def options(command: click.Command) -> set[str]:
    context = click.Context(command)
    return {name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)}


def words_of(command: str) -> list[str]:
    return shlex.split(re.sub(r" > [^\s']+$", "", command))


def test_commands_are_found_in_a_page() -> None:
    said = "Say `lbmux show\nbgp`:\n\n    lbmux x   # why\n    not a command\n\n"
    text = said + "```shell\nip link\n```\n```yaml\n    make a\n```\n"
    assert [*commands(text)] == ["lbmux x", "ip link"]
    assert inline(text) == {"lbmux show bgp"}


@pytest.mark.parametrize("command", ALL)
def test_it_parses(command: str) -> None:
    words = words_of(command)
    if words[0] == "lbmux":
        subcommand, name, arguments = resolved(words)
        subcommand.make_context(name, arguments)  # click raises UsageError if it refuses them
    elif words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True, timeout=TIMEOUT_S)
    elif words[1:3] == ["-m", "bench"]:
        assert {*words[3:]} <= {"all", *RELEASE, *OTHERS, *LONG}
    else:
        subprocess.run(["bash", "-n", "-c", command], check=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("command", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_of_the_manual_parse(command: str) -> None:
    subcommand, name, arguments = resolved(words_of(command))
    subcommand.make_context(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_in_sentences_exist(page: Path) -> None:
    for command in inline(page.read_text()):
        subcommand, _, arguments = resolved(shlex.split(command))
        unknown = {word.partition("=")[0] for word in arguments if word.startswith("-") and word != "-"} - options(
            subcommand
        )
        assert not unknown, command


def test_every_exception_is_in_the_documentation() -> None:
    texts = [str(one.values[0]) for one in ALL]
    assert not [start for start in PARSED_ONLY if not any(begins(text, start) for text in texts)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A lab's name, and a directory with the files that the documentation names."""
    name, directory = f"docs{os.getpid()}", tmp_path_factory.mktemp("docs")
    (text,) = blocks(ROOT / "README.md", "yaml")
    for file in ("services.yaml", "new.yaml"):
        (directory / file).write_text(text)
    try:
        ran = shell(f"lbmux lab up ananta-bgp --name {name} --driver packet", directory)
        assert ran.returncode == 0, ran.stdout
        yield name, directory
    finally:
        shell(f"lbmux lab down --name {name}", directory)


def shell(command: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command], cwd=directory, env=os.environ | {"PATH": path}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=TIMEOUT_S,
    )  # fmt: skip


def in_lab(command: str, name: str) -> str:
    """The command as it is for this lab: its sockets, its nodes, its names."""
    command = SHORTENED.get(command, command)
    for there, here in HERE.items():
        command = command.replace(there, here.format(name=name))
    if begins(command, "lbmux lab") and not begins(command, "lbmux lab topology"):
        verb = " ".join(command.split()[:3])
        return command.replace(verb, f"{verb} --name {name}", 1)
    if command.startswith("lbmux "):
        subcommand, _, _ = resolved(words_of(command))
        if "--control" in options(subcommand) and " -c " not in command:
            command += f" --control /run/lbmux/lab/{name}/mux1.sock"
    node = next((node for start, node in NODES.items() if begins(command, start)), None)
    return f"lbmux lab exec --name {name} {node} {command}" if node else command


def lateness(command: str) -> int:
    """Commands in the order of the documentation; those that end what the others need come last."""
    return sum(number for number, start in enumerate(("lbmux detach", "lbmux lab down"), 1) if begins(command, start))


@pytest.mark.root
def test_commands_run(lab: tuple[str, Path]) -> None:
    name, directory = lab
    texts = [str(one.values[0]) for one in ALL]
    wanted = [text for text in texts if not any(begins(text, start) for start in PARSED_ONLY)]
    for text in sorted(dict.fromkeys(wanted), key=lateness):
        ran = shell(in_lab(text, name), directory)
        fine = (0, 1) if begins(text, "lbmux doctor") else (0,)  # 1: it reports a fault
        assert ran.returncode in fine, f"{text}: exit code {ran.returncode}\n{ran.stdout}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.stem)
def test_configurations_are_valid(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "yaml"):
        (tmp_path / "services.yaml").write_text(text)
        load(tmp_path / "services.yaml")


def test_router_configurations_are_valid(tmp_path: Path) -> None:
    page = ROOT / "docs" / "bgp.md"
    for language, check in (("bird", ["bird", "-p", "-c"]), ("frr", ["vtysh", "-C", "-f"])):
        (text,) = blocks(page, language)
        (tmp_path / language).write_text(text)
        ran = subprocess.run([*check, tmp_path / language], capture_output=True, text=True, timeout=TIMEOUT_S)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_settings_of_a_linux_router_exist() -> None:
    (text,) = blocks(ROOT / "docs" / "bgp.md", "sysctl")
    for line in text.splitlines():
        assert Path("/proc/sys", line.partition("=")[0].replace(".", "/")).exists(), line
