"""The manager's store: keys with values, transactions, watches and leases behind one small interface.

`sqlite_store` keeps it in a file of one process, `etcd_store` in an etcd cluster. Each commit has a revision, a number
that grows; an entry knows the revisions that created and last modified it, and a guard compares the latter. These are
etcd's terms (https://etcd.io/docs/v3.4/learning/api/).
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

from lbmux.errors import LbmuxError

MAX_VALUE_BYTES = 1 << 20
"""The largest value: an etcd request may have 1.5 MiB."""


@dataclass(frozen=True)
class Entry:
    """One key; ``created`` and ``modified`` are revisions of the store."""

    key: str
    value: bytes
    created: int
    modified: int


@dataclass(frozen=True)
class Contents:
    """Entries by key, all as they were at ``revision``."""

    revision: int
    entries: Mapping[str, Entry]


@dataclass(frozen=True)
class Guard:
    """A condition of a commit: the key was last modified at this revision; 0: the key does not exist."""

    key: str
    modified: int


@dataclass(frozen=True)
class Write:
    """A new value, or None to delete the key; the entry goes when its ``lease`` ends."""

    key: str
    value: bytes | None
    lease: int | None = None


@dataclass(frozen=True)
class Batch:
    """What one commit changed: values by key, None for deleted keys."""

    revision: int
    changes: Mapping[str, bytes | None]


class ConflictError(LbmuxError):
    """A guard did not hold; nothing was written."""

    keys: tuple[str, ...]

    def __str__(self) -> str:
        return f"the store changed in the meantime: {', '.join(self.keys)}"


class UnavailableError(LbmuxError):
    """The store does not answer; ``uncertain``: the commit may have been made anyway."""

    store: str
    reason: str
    uncertain: bool = False

    def __str__(self) -> str:
        return f"{self.store}: {self.reason}" + ("; the change may have been stored" if self.uncertain else "")


class CompactedError(LbmuxError):
    """The store no longer has the changes after this revision: read again, and watch from there."""

    revision: int

    def __str__(self) -> str:
        return f"changes after revision {self.revision} are no longer in the store"


class LeaseExpiredError(LbmuxError):
    """The lease has ended; its keys are gone."""

    lease: int

    def __str__(self) -> str:
        return f"lease {self.lease} has expired"


class Store(ABC):
    """Open within ``async with``.  All methods raise UnavailableError if the store does not answer within 4 s."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self.open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    @abstractmethod
    async def open(self, stack: AsyncExitStack) -> None:
        """Open the store; ``stack`` closes it."""

    @abstractmethod
    async def read(self, prefix: str) -> Contents:
        """Return all entries whose key begins with ``prefix``, in the order of keys."""

    @abstractmethod
    async def get(self, key: str) -> Entry | None: ...

    @abstractmethod
    async def commit(self, guards: Collection[Guard], writes: Collection[Write]) -> int:
        """Make all writes at once if all guards hold, and return the new revision; else raise ConflictError.

        Raise LeaseExpiredError if a write's lease has ended.
        """

    @abstractmethod
    def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch]:
        """Yield what later commits change below ``prefix``, in order and without gaps, or raise CompactedError."""

    @abstractmethod
    async def grant(self, ttl_s: int) -> int:
        """Return a new lease, which ends ``ttl_s`` seconds after it was last kept.  The cluster may choose longer."""

    @abstractmethod
    async def keep(self, lease: int) -> None:
        """Start the lease's time again; raise LeaseExpiredError."""

    @abstractmethod
    async def revoke(self, lease: int) -> None:
        """End the lease and delete its keys; nothing happens if it has ended."""

    @abstractmethod
    def term(self, election: Entry) -> int:
        """Return the number of the primary that made this entry, which is greater than that of each earlier primary."""
