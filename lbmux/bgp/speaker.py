"""The interface of a BGP speaker: how it is run, and how routes are announced."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from lbmux.bgp.bgp_settings import Neighbour, Route
from lbmux.linux.capabilities import Capability


class Speaker(Protocol):
    """A BGP implementation.  Its files are in a private directory, which exists before it is used."""

    name: str
    environment: Mapping[str, str]
    """Variables that the process gets besides the bare environment."""
    capabilities: Collection[Capability]
    """Those that the process keeps, if the daemon has them; it loses all others."""

    def command(self) -> list[str]:
        """Return the command line; raise SetupError if the speaker is not installed."""
        ...

    async def prepare(self, routes: frozenset[Route]) -> None:
        """Write the files that the process reads when it starts."""
        ...

    async def change(self, before: frozenset[Route], after: frozenset[Route]) -> None:
        """Announce and withdraw routes; raise OSError if the process cannot be reached."""
        ...

    async def neighbours(self) -> list[Neighbour]: ...

    async def close(self) -> None: ...


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can ever read, since it may hold a password."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(text)
