"""The manager's answers in JSON; an error has the status of its kind."""

from aiohttp import web

from lbmux.config.field_types import Model
from lbmux.errors import ConfigError, LbmuxError
from lbmux.manager.api_models import ErrorAnswer
from lbmux.manager.guard_rails import GuardRailError
from lbmux.manager.map_revisions import StaleMapError, UnknownMapError
from lbmux.manager.proposals import CanaryError, NotPrimaryError, TooLargeError
from lbmux.manager.relay import RelayError
from lbmux.manager.revisions import StaleRevisionError, UnknownRevisionError
from lbmux.manager.store.store import ConflictError, UnavailableError
from lbmux.manager.tokens import AccessError

STATUSES: tuple[tuple[type[LbmuxError], int], ...] = (
    (UnknownRevisionError, 404),
    (RelayError, 404),
    (UnknownMapError, 404),
    (StaleRevisionError, 409),
    (StaleMapError, 409),
    (ConflictError, 409),
    (GuardRailError, 409),
    (CanaryError, 409),
    (TooLargeError, 413),
    (UnavailableError, 503),
    (NotPrimaryError, 503),
)
"""The status of an error's answer; else 400."""


def json_answer(answer: Model, status: int = 200) -> web.Response:
    """Return a model as a JSON answer."""
    return web.Response(body=answer.model_dump_json().encode(), status=status, content_type="application/json")


def error_answer(error: LbmuxError, request: web.Request) -> web.Response:
    """Return the answer for an error; it redirects a request for the primary."""
    first, *more = str(error).splitlines()
    if isinstance(error, ConfigError):
        first, more = "the configuration is invalid", error.lines()
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 400)
    if isinstance(error, AccessError):
        status = error.status
    answer = json_answer(ErrorAnswer(error=first, problems=tuple(more)), status)
    other = (
        error.primary if isinstance(error, NotPrimaryError) else error.manager if isinstance(error, RelayError) else ""
    )
    if other:
        answer.set_status(307)
        answer.headers["Location"] = f"{other}{request.path_qs}"
    if answer.status in (408, 413):
        answer.force_close()  # the rest of the body is not read
    return answer
