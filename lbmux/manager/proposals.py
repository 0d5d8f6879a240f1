"""A proposed change of the pool: who makes it, what it contains, its result, and the errors that refuse it."""

from dataclasses import dataclass

from lbmux.errors import LbmuxError
from lbmux.manager.documents import Impact, Revision


class TooLargeError(LbmuxError):
    """A value that is larger than the store accepts, in bytes. A file counts as compressed."""

    key: str
    size: int
    limit: int

    def __str__(self) -> str:
        return f"{self.key} would have {self.size} bytes in the store, which takes {self.limit}"


class NotPrimaryError(LbmuxError):
    """This manager is not, or no longer, the primary: it cannot change anything."""

    primary: str = ""

    def __str__(self) -> str:
        return "this manager is not the primary" + (f"; the primary is {self.primary}" if self.primary else "")


class CanaryError(LbmuxError):
    """A change that is not possible with a canary, or a canary that is not possible."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Caller:
    """The author of a change: the name of a token or node, and the address that the request came from."""

    name: str
    origin: str = ""


@dataclass(frozen=True)
class Applied:
    """``revision`` is None after a dry run, and if nothing changed; ``needs_force``: why a change needs it.

    ``impact``: what live nodes say; None if they were not asked.
    """

    revision: Revision | None
    changes: tuple[str, ...]
    needs_force: tuple[str, ...]
    impact: Impact | None = None


@dataclass(frozen=True)
class Proposal:
    """A file to apply: whole, or one service of it.  ``name`` is used in messages about its lines.

    ``canary``: a mux that gets the revision ``soak_s`` seconds before all other nodes.
    """

    text: bytes
    name: str = "services.yaml"
    service: str | None = None
    message: str = ""
    force: bool = False
    dry_run: bool = False
    canary: str | None = None
    soak_s: float = 30.0
