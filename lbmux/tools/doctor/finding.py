"""What a check of the doctor found: a state, what was seen, and how to mend it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "unchecked", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """``check`` is the name of the check, ``hint`` empty where nothing is to be done.

    ``unchecked``: what could not be looked at, for the reason seen; it may be right or wrong.
    """

    check: str
    state: State
    seen: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def ok(check: str, seen: str) -> Finding:
    return Finding(check, "ok", seen)


def unchecked(check: str, seen: str, hint: str = "") -> Finding:
    return Finding(check, "unchecked", seen, hint)


def warning(check: str, seen: str, hint: str) -> Finding:
    return Finding(check, "warning", seen, hint)


def fault(check: str, seen: str, hint: str) -> Finding:
    return Finding(check, "fault", seen, hint)
