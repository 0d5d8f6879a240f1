"""A client of the manager's API for the command line: one request at a time, with the standard library."""

import ssl
from collections.abc import Iterator, Sequence
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

from pydantic import ValidationError

from lbmux.config.field_types import Model
from lbmux.errors import LbmuxError
from lbmux.manager.api_models import ErrorAnswer
from lbmux.manager.forwarded import forwarded_for

PORT, TIMEOUT_S, MOST_REDIRECTS = 7443, 15.0, 2
Answer = TypeVar("Answer", bound=Model)
Request = tuple[str, str, bytes]
"""Method, path and body."""
Opened = tuple[str, HTTPSConnection, HTTPResponse]
"""A manager's URL, the connection to it, and its answer."""


class ApiError(LbmuxError):
    """A manager refused a request, or none could be reached (``status`` is 0).

    ``problems`` holds its reasons, one per line, if there is more than one.
    """

    url: str
    reason: str
    problems: tuple[str, ...] = ()
    status: int = 0

    def __str__(self) -> str:
        return "\n".join([f"{self.url}: {self.reason}", *self.problems])


class ApiClient:
    """``urls``: managers, tried in order until one answers; ``token`` may be empty for public requests.

    ``origin``: the address for which a manager asks, whose certificate is in ``context``.
    """

    def __init__(
        self, urls: Sequence[str], token: str, context: ssl.SSLContext, timeout_s: float = TIMEOUT_S, *,
        origin: str = "",
    ) -> None:  # fmt: skip
        self._urls, self._context, self._timeout_s = urls, context, timeout_s
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        if origin:
            self._headers["Forwarded"] = forwarded_for(origin)

    def get(self, path: str, answer: type[Answer], **query: object) -> Answer:
        parameters = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", f"{path}?{urlencode(parameters)}" if parameters else path, b"", answer)

    def post(self, path: str, body: Model, answer: type[Answer]) -> Answer:
        return self._ask("POST", path, body.model_dump_json().encode(), answer)

    def delete(self, path: str, answer: type[Answer], **query: object) -> Answer:
        return self._ask("DELETE", f"{path}?{urlencode(query)}", b"", answer)

    def read(self, path: str) -> bytes:
        """Return the body of an answer that is not a model."""
        return self._request("GET", path, b"")[1]

    def lines(self, path: str, body: bytes, timeout_s: float | None) -> Iterator[bytes]:
        """Post a request and yield the lines of its answer as they arrive; ``timeout_s``: the wait for each line."""
        url, connection, response = self._open(("POST", path, body), timeout_s)
        try:
            yield from response
        except (OSError, HTTPException) as error:
            raise ApiError(url, f"no answer: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _ask(self, method: str, path: str, body: bytes, answer: type[Answer]) -> Answer:
        url, text = self._request(method, path, body)
        try:
            return answer.model_validate_json(text)
        except ValidationError as error:
            raise ApiError(
                url, "this version does not understand the answer; does the manager run another version?"
            ) from error

    def _request(self, method: str, path: str, body: bytes) -> tuple[str, bytes]:
        """Ask the first manager that can be reached, and return its URL and answer."""
        url, connection, response = self._open((method, path, body), self._timeout_s)
        try:
            return url, response.read()
        except (OSError, HTTPException) as error:
            raise _cut(url, method, error) from error
        finally:
            connection.close()

    def _open(self, what: Request, timeout_s: float | None) -> Opened:
        """Ask the first manager that can be reached, without reading the answer."""
        unreachable = []
        for url in self._urls:
            try:
                connection = self._connect(url)
            except ssl.SSLError as error:
                raise ApiError(url, f"TLS: {error.reason or error}; is --manager-ca the CA of this pool?") from error
            except OSError as error:
                unreachable.append(ApiError(url, error.strerror or str(error)))
                continue
            return self._send(url, connection, what, timeout_s)
        raise (
            unreachable[0]
            if len(unreachable) == 1
            else ApiError("no manager can be reached", "tried all", tuple(map(str, unreachable)))
        )

    def _connect(self, url: str) -> HTTPSConnection:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        if parts.scheme != "https" or not parts.hostname:
            raise ApiError(url, "is not https://HOST:PORT")
        connection = HTTPSConnection(parts.hostname, parts.port or PORT, timeout=self._timeout_s, context=self._context)
        connection.connect()
        return connection

    def _send(
        self, url: str, connection: HTTPSConnection, what: Request, timeout_s: float | None, redirects: int = 0
    ) -> Opened:
        method, path, body = what
        connection.sock.settimeout(timeout_s)
        try:
            connection.request(method, path, body or None, self._headers)
            response = connection.getresponse()
            if response.status == 200:
                return url, connection, response
            text = response.read()
        except (OSError, HTTPException) as error:
            connection.close()
            raise _cut(url, method, error) from error
        connection.close()
        if response.status == 307 and redirects < MOST_REDIRECTS:
            return self._follow(response.getheader("Location", ""), what, timeout_s, redirects + 1)
        raise _refused(url, response, text)

    def _follow(self, url: str, what: Request, timeout_s: float | None, redirects: int) -> Opened:
        """Follow a redirect to another manager."""
        parts = urlsplit(url)
        other = f"{parts.scheme}://{parts.netloc}"
        try:
            connection = self._connect(other)
        except OSError as error:
            raise ApiError(other, f"this manager cannot be reached: {error.strerror or error}") from error
        return self._send(other, connection, what, timeout_s, redirects)


def _cut(url: str, method: str, error: Exception) -> ApiError:
    may = "" if method == "GET" else "; the change may have been made"
    return ApiError(url, f"no answer: {error or type(error).__name__}{may}")


def _refused(url: str, response: HTTPResponse, text: bytes) -> ApiError:
    try:
        answer = ErrorAnswer.model_validate_json(text)
    except ValidationError:
        return ApiError(url, f"{response.status} {response.reason}", status=response.status)
    return ApiError(url, answer.error, answer.problems, response.status)


def trusting(ca: str | None) -> ssl.SSLContext:
    """Return TLS settings that trust the pool's CA, in PEM; None trusts any server, to fetch the CA's certificate."""
    context = ssl.create_default_context(cadata=ca)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
