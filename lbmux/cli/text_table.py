"""Tables for people: `lbmux show` and commands like it."""

from collections.abc import Iterable, Mapping
from typing import Any


def print_table(lines: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print lines as a table; ``columns`` maps each title to its field.

    Without a terminal, no line is wrapped or cut.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table, lines = Table(box=box.SIMPLE_HEAD), list(lines)
    for title, name in columns.items():
        is_number = any(isinstance(line[name], int) and not isinstance(line[name], bool) for line in lines)
        table.add_column(title, justify="right" if is_number else "left", no_wrap=name != "backends", overflow="fold")
    for line in lines:
        table.add_row(*(cell(line[name]) for name in columns.values()))
    console = Console(highlight=False)
    console.print(table) if console.is_terminal else Console(width=1000, highlight=False).print(table)


def cell(value: Any) -> str:
    """Return a value as text for people; long lists are cut."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return (
            ", ".join(map(cell, value))
            if len(value) < 5
            else f"{', '.join(map(cell, value[:3]))} and {len(value) - 3} more"
        )
    return str(value)
