"""The ports in docs/threats.md are those of the code, and both pages with ports agree."""

import re
from typing import Any

from pydantic import BaseModel

from lbmux.cli.main import group
from lbmux.config.models import Config
from tests.docs.pages import ROOT

THREATS = (ROOT / "docs" / "threats.md").read_text()
NUMBERED = re.compile(r"(TCP|UDP|IP protocol) (\d+)")


def rows() -> list[list[str]]:
    """The rows of the table of ports: role, port, key, from, authenticated by, filter."""
    section = THREATS.split("## Ports\n", 1)[1].split("\n## ", 1)[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def ports_of(model: type[BaseModel], before: str = "") -> dict[str, int]:
    """The keys of a configuration that name a port to listen on, with their defaults."""
    ports = {}
    for name, field in model.model_fields.items():
        if name.endswith("_port") and isinstance(field.default, int):
            ports[f"{before}{name}"] = field.default
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            for inner in (kind, *getattr(kind, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    ports |= ports_of(inner, f"{name}.")
    return ports


def default_of(command: str, option: str) -> Any:
    context: Any = None
    subcommand = group.get_command(context, command)
    assert subcommand is not None
    return next(one.default for one in subcommand.params if option in one.opts)


def test_each_port_of_the_configuration_is_named_with_its_default() -> None:
    named = {key.strip("`"): NUMBERED.match(port) for _, port, key, *_ in rows()}
    wanted = ports_of(Config)
    assert {"tunnel.gue_port", "tunnel.geneve_port", "tunnel.probe_port", "health.agent_port"} <= wanted.keys()
    for key, default in wanted.items():
        match = named.get(key)
        assert match is not None, f"{key} is missing in docs/threats.md"
        assert int(match[2]) == default, key


def test_the_ports_of_commands_are_their_defaults() -> None:
    by_role = {role: port for role, port, key, *_ in rows() if key in ("`--listen`", "`--port`")}
    assert by_role["web"] == f"TCP {default_of('web', '--port')}"
    assert by_role["manager"] == f"TCP {str(default_of('manager', '--listen')).rpartition(':')[2]}"


def test_operations_names_no_port_that_is_missing_here() -> None:
    section = (ROOT / "docs" / "operations.md").read_text().split("## Ports\n", 1)[1].split("\n## ", 1)[0]
    known = {number for _, port, *_ in rows() for number in re.findall(r"\d+", port)}
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")][1:]
    assert {number for cell in first_cells for number in re.findall(r"\d+", cell)} <= known


def test_each_row_says_who_sends_and_what_authenticates_it() -> None:
    assert len(rows()) > 15
    for row in rows():
        assert len(row) == 6 and all(row[at] for at in (0, 1, 3, 4, 5)), row
