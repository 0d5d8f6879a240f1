"""The interface of a BGP speaker: how it is run, and how it is told what to announce."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from lbmux.bgp.bgp_settings import Neighbour, Route


class Speaker(Protocol):
    """One implementation of BGP.  Its files are in a private directory, which is made before it is used."""

    name: str
    environment: Mapping[str, str]

    def command(self) -> list[str]:
        """What to run; SetupError where it is not installed."""
        ...

    async def prepare(self, routes: frozenset[Route]) -> None:
        """Write the files that the process reads when it starts."""
        ...

    async def change(self, before: frozenset[Route], after: frozenset[Route]) -> None:
        """Announce and withdraw.  OSError where the process cannot be reached."""
        ...

    async def neighbours(self) -> list[Neighbour]: ...

    async def close(self) -> None: ...


def write_private(path: Path, text: str) -> None:
    """Readable by its owner only, from the first moment on: it may hold a password."""
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(text)
