"""Who may see the page: anybody on this machine, and elsewhere whoever has the token.

Without a token only requests that name this machine itself are answered: a page of somebody else's that had its own
name point here (DNS rebinding) names another.  With one, a link carries it once, and a cookie from then on.
"""

import hmac
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
        if token is None:
            if not is_local(request.url.host or ""):
                raise web.HTTPForbidden(text="lbmux: this page is served to this machine only\n")
        elif _same(request.query.get("token", ""), token):
            response = web.HTTPSeeOther("/")  # so that the token is in no history and no log of what comes next
            response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
            raise response
        elif not _same(request.cookies.get(COOKIE, ""), token) and not _same(_bearer(request), token):
            raise web.HTTPUnauthorized(text="lbmux: open the link with ?token= that `lbmux web` printed\n")
        return await handler(request)

    return middleware


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _bearer(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
