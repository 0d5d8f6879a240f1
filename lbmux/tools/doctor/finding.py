"""One finding of the doctor: a state, what was observed, and a hint."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "unchecked", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """``check`` names the check.  ``hint`` is empty where there is nothing to do.

    State ``unchecked``: the check could not be made, for the reason in ``seen``; the result is unknown.
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
