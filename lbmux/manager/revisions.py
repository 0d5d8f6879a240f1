"""Revisions of the pool's configuration file: numbers, conflicts, and where each is in force.  Pure.

`lbmux config get` prints a file with its revision as a comment in the first line. `lbmux apply` sends the line back,
and the manager refuses the file if another revision is current by then.
"""

import re
import time
from collections.abc import Collection
from hashlib import sha256

from lbmux.config.models import Config
from lbmux.errors import LbmuxError
from lbmux.manager.documents import NodeReport, Revision, Rollout

HEADER = re.compile(rb"# lbmux revision (\d{1,12})\b[^\n]*(?:\n|$)")


class StaleRevisionError(LbmuxError):
    """The file is based on a revision that is no longer current."""

    expected: int
    current: int

    def __str__(self) -> str:
        return (
            f"the file is based on revision {self.expected}, but revision {self.current} is current: "
            f"see `lbmux config diff {self.expected} {self.current}`, and start from `lbmux config get`"
        )


class UnknownRevisionError(LbmuxError):
    """There is no revision of this number, or it is no longer kept."""

    number: int

    def __str__(self) -> str:
        if self.number == 0:
            return "there is no revision yet; `lbmux apply FILE` makes the first"
        return f"revision {self.number} does not exist; `lbmux show revisions` lists all revisions"


class FirstRevisionError(UnknownRevisionError):
    """A rollback of the first revision."""

    def __str__(self) -> str:
        return "revision 1 is the first one: there is none before it"


def split_header(text: bytes) -> tuple[int | None, bytes]:
    """Return the revision in the first line, or None, and the file without that line."""
    match = HEADER.match(text)
    return (int(match[1]), text[match.end() :]) if match else (None, text)


def with_header(text: bytes, revision: Revision) -> bytes:
    """Return the file with its revision in the first line."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(revision.time))
    message = " ".join(revision.message.split())
    line = f"# lbmux revision {revision.number}, {at}, {revision.author}" + (f": {message}" if message else "")
    return line.encode() + b"\n" + text


def check_current(expected: int | None, current: int) -> None:
    """Raise StaleRevisionError unless ``expected`` is the current revision, or not given."""
    if expected is not None and expected != current:
        raise StaleRevisionError(expected, current)


def new_revision(
    number: int, text: bytes, config: Config, author: str, now: float, message: str,
    *, forced: bool = False, rollback_of: int | None = None,
) -> Revision:  # fmt: skip
    """Describe a file; ``text`` is without header."""
    return Revision(
        number=number, author=author, time=now, message=message, digest=digest(text), forced=forced,
        services=len(config.services), backends=sum(len(service.backends) for service in config.services),
        rollback_of=rollback_of,
    )  # fmt: skip


def digest(text: bytes) -> str:
    return sha256(text).hexdigest()[:16]


def rollback_target(current: int, wanted: int | None) -> int:
    """Return the revision to restore: the one before the current, unless another is wanted."""
    if wanted is None and current < 2:
        raise FirstRevisionError(0) if current else UnknownRevisionError(0)
    target = current - 1 if wanted is None else wanted
    if not 0 < target <= current:
        raise UnknownRevisionError(target)
    return target


def rollout(number: int, reports: Collection[NodeReport]) -> Rollout:
    """Return where a revision is in force, by the last report of each node."""
    mine = [report for report in reports if report.revision == number]
    refused = {report.node: report.refused for report in mine if report.refused}
    return Rollout(in_force=len(mine) - len(refused), nodes=len(reports), refused=refused)
