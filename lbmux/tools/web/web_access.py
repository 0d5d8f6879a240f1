"""Who may see the page: anybody on this machine, and elsewhere whoever has the token.

Without a token only requests that name this machine itself are answered: a page of somebody else's that had its own
name point here (DNS rebinding) names another.  With one, a link carries it once, and a cookie from then on.

A page of another origin may link here, and nothing more: its requests are refused, with a token or without.
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
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def is_local(host: str) -> bool:
    """Whether an address or name is this machine's alone."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def guard(token: str | None) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_link = request.path == "/" and request.method in ("GET", "HEAD")
        if not is_link and is_cross_origin(request.headers):
            raise web.HTTPForbidden(text="lbmux: requests from pages of another origin are refused\n")
        if token is None:
            if not is_local(_host(request)):
                raise web.HTTPForbidden(text="lbmux: this page is served to this machine only\n")
        elif _same(request.query.get("token", ""), token):
            response = web.HTTPSeeOther("/")  # so that the token is in no history and no log of what comes next
            response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
            raise response
        elif not _same(request.cookies.get(COOKIE, ""), token) and not _same(_bearer(request), token):
            raise web.HTTPUnauthorized(text="lbmux: open the link with ?token= that `lbmux web` printed\n")
        return await handler(request)

    return middleware


def is_cross_origin(headers: Mapping[str, str]) -> bool:
    """Whether another origin's page made a browser send this (W3C Fetch Metadata; RFC 6454, section 7).

    Programs that are not browsers send neither header.
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
    except ValueError:  # a Host header that is no host
        return ""


def _same(one: str, other: str) -> bool:
    """Of any text: bytes of a header that are not UTF-8 come as surrogates."""
    return hmac.compare_digest(*(text.encode("utf-8", "surrogatepass") for text in (one, other)))
