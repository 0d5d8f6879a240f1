"""Access to the page: all users of this machine and, from elsewhere, clients that have the token.

Without a token, only requests whose Host is this machine are answered, which stops DNS rebinding.  With a token, a link
carries it once and a cookie afterwards.

Pages of another origin may link here; their other requests are refused, with or without a token.
"""

import hmac
from collections.abc import Mapping
from ipaddress import ip_address

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

COOKIE = "lbmux-token"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_local(host: str) -> bool:
    """Return whether an address or name is a loopback one."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def guard(token: str | None) -> Middleware:
    """Return middleware that admits requests with the token, or from this machine if ``token`` is None.

    Refusals are 401 and 403; a link with the token sets a cookie. Requests from pages of another origin are refused.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_link = request.path == "/" and request.method in ("GET", "HEAD")
        if not is_link and is_cross_origin(request.headers):
            raise web.HTTPForbidden(text="lbmux: requests from pages of another origin are refused\n")
        if token is None:
            if not is_local(_host(request)):
                raise web.HTTPForbidden(text="lbmux: this page is served to this machine only\n")
        elif _same(request.query.get("token", ""), token):
            response = web.HTTPSeeOther("/")  # redirect, so that the token stays out of the history and of logs
            response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
            raise response
        elif not _same(request.cookies.get(COOKIE, ""), token) and not _same(_bearer(request), token):
            raise web.HTTPUnauthorized(text="lbmux: open the link with ?token= that `lbmux web` printed\n")
        return await handler(request)

    return middleware


def is_cross_origin(headers: Mapping[str, str]) -> bool:
    """Return whether a page of another origin caused this request (W3C Fetch Metadata; RFC 6454, section 7).

    Programs other than browsers send neither header.
    """
    if headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        return True
    origin, host = headers.get("Origin"), headers.get("Host", "")
    return origin is not None and origin.partition("://")[2].lower() != host.lower()


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _bearer(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _host(request: web.Request) -> str:
    try:
        return request.url.host or ""
    except ValueError:  # an invalid Host header
        return ""


def _same(one: str, other: str) -> bool:
    """Compare in constant time.  Header bytes that are not UTF-8 arrive as surrogates."""
    return hmac.compare_digest(*(text.encode("utf-8", "surrogatepass") for text in (one, other)))
