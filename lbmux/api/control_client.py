"""The client of the control protocol (lbmux.api.protocol); the command line, `top`, `web` and the doctor share it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from lbmux.api.channel import ControlTarget, answers, target_name
from lbmux.api.protocol import VERSION, from_plain
from lbmux.api.requests import Answer, ListRequest, Request
from lbmux.errors import ControlError


@dataclass(frozen=True)
class ControlClient:
    """Sends requests to the daemon at ``place``, each on a connection of its own.

    ``timeout_s`` limits the wait for each answer; None waits for ever.  All methods raise ControlError if the daemon
    refuses the request, does not answer, or has another version of the protocol.
    """

    place: ControlTarget
    timeout_s: float | None = 30.0

    def ask(self, request: Request[Answer]) -> Answer:
        """Return the answer, the first one of a stream."""
        for answer in self.stream(request):
            return answer
        raise self._error(f"the daemon gave no answer to `{request.command}`")

    def whole(self, request: ListRequest[Answer]) -> Answer:
        """Return the first answer, with the lines of all answers."""
        first, *others = self.stream(request)
        lines = [line for part in (first, *others) for line in getattr(part, request.command)]
        whole: Answer = replace(first, **{request.command: lines})  # type: ignore[type-var]
        return whole

    def stream(self, request: Request[Answer]) -> Iterator[Answer]:
        """Yield the answers as they arrive."""
        line = json.dumps({"command": request.command, "version": VERSION, **vars(request)}).encode() + b"\n"
        for result in self._results(line):
            try:
                yield from_plain(request.answer, result)
            except ValueError as error:
                reason = f"this version does not understand the answer to `{request.command}`: {error}"
                raise self._error(reason) from None

    def _results(self, request: bytes) -> Iterator[Any]:
        try:
            with answers(self.place, request, self.timeout_s) as lines:
                for line in lines:
                    answer = self._understand(line)
                    if answer.get("end"):
                        return
                    yield answer["result"]
                    if not answer.get("more"):
                        return
        except OSError as error:
            raise self._error(error.strerror or str(error)) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._error("the process that listens there is not an lbmux daemon") from error
        raise self._error("the daemon closed the connection")

    def _error(self, reason: str, problems: tuple[str, ...] = ()) -> ControlError:
        return ControlError(target_name(self.place), reason, problems)

    def _understand(self, line: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(line)
        is_ok, version = answer["ok"], answer.get("version", VERSION)
        if version != VERSION:
            reason = f"the daemon speaks version {version!r} of the control protocol, this lbmux version {VERSION}"
            raise self._error(f"{reason}: use an lbmux of the daemon's version")
        if not is_ok:
            raise self._error(answer["error"], tuple(answer.get("problems", ())))
        return answer
