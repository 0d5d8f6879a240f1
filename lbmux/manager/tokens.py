"""Tokens of people and programs with their roles, and one-time tokens with which a node joins.  Pure.

A token is `lbmux_ID_SECRET`. The store has a hash of the secret, so a copy of the store gives no access. The secret has
256 random bits, for which one round of SHA-256 is enough. A join token ends with the CA's fingerprint, by which the
node recognises the pool before it trusts any manager (as kubeadm does).
"""

import hmac
import re
import secrets
from collections.abc import Collection
from hashlib import sha256
from typing import Literal

from pydantic import Field

from lbmux.config.field_types import Model
from lbmux.errors import LbmuxError
from lbmux.manager.documents import Message

AccessRole = Literal["viewer", "operator", "admin"]
RANKS: dict[str, int] = {"viewer": 0, "operator": 1, "admin": 2}
"""Roles in ascending order: each may do what the lower ones may."""
TOKENS, JOINS = "tokens/", "joins/"
TOKEN = re.compile(r"lbmux_([0-9a-f]{12})_([0-9a-f]{64})")
JOIN_TOKEN = re.compile(r"lbmuxjoin_([0-9a-f]{12})_([0-9a-f]{64})_([0-9a-f]{64})")


class AccessError(LbmuxError):
    """A request without the right to make it; ``status`` is 401 (unknown) or 403 (not allowed)."""

    reason: str
    status: int = 403

    def __str__(self) -> str:
        return self.reason


class Token(Model):
    """A token as it is stored."""

    id: str
    name: Message
    role: AccessRole
    services: tuple[str, ...] = ()
    """The services that it may change; empty: all."""
    digest: str = Field(repr=False)
    created: float
    until: float | None = None
    """When it ends; null: never."""


class JoinToken(Model):
    """A one-time token as it is stored; it is deleted when it is used."""

    id: str
    name: str
    """The name of the node that may use it."""
    role: Literal["manager", "node"]
    digest: str = Field(repr=False)
    until: float


def new_token(
    name: str, role: AccessRole, now: float, services: tuple[str, ...] = (), until: float | None = None
) -> tuple[Token, str]:
    """Return what is stored, and the token as text, which is shown once."""
    number, secret = secrets.token_hex(6), secrets.token_hex(32)
    stored = Token(id=number, name=name, role=role, services=services, digest=_digest(secret), created=now, until=until)
    return stored, f"lbmux_{number}_{secret}"


def new_join_token(
    name: str, role: Literal["manager", "node"], until: float, ca_fingerprint: str
) -> tuple[JoinToken, str]:
    number, secret = secrets.token_hex(6), secrets.token_hex(32)
    stored = JoinToken(id=number, name=name, role=role, digest=_digest(secret), until=until)
    return stored, f"lbmuxjoin_{number}_{secret}_{ca_fingerprint}"


def token_id(text: str) -> str:
    """Return the id in a token of either kind; raise AccessError."""
    match = TOKEN.fullmatch(text) or JOIN_TOKEN.fullmatch(text)
    if match is None:
        raise AccessError("the token is not one of lbmux", 401)
    return match[1]


def ca_fingerprint_in(join_token: str) -> str:
    match = JOIN_TOKEN.fullmatch(join_token)
    if match is None:
        raise AccessError("the token is not one that `lbmux manager join-token` prints", 401)
    return match[3]


def check_secret(text: str, stored: Token | JoinToken | None, now: float) -> None:
    """Raise AccessError unless the text is the stored token, and it has not ended."""
    match = TOKEN.fullmatch(text) if isinstance(stored, Token) else JOIN_TOKEN.fullmatch(text)
    if match is None or stored is None or not hmac.compare_digest(_digest(match[2]), stored.digest):
        raise AccessError("the token is unknown", 401)
    if stored.until is not None and stored.until <= now:
        raise AccessError("the token has expired", 401)


def check_role(token: Token, needed: AccessRole) -> None:
    if RANKS[token.role] < RANKS[needed]:
        raise AccessError(f"token {token.name} is a {token.role}'s; this needs the role {needed}")


def check_service(token: Token, service: str | None, sharing: Collection[str] = ()) -> None:
    """Raise AccessError if the token is limited to services and this change is not about one of them.

    ``sharing``: the services that share the service's pool, if the change acts in them too.
    """
    if token.services and service not in token.services:
        raise AccessError(f"token {token.name} may change only service {', '.join(token.services)}: give --service")
    others = [one for one in sharing if token.services and one not in token.services]
    if others:
        more = f" and {len(others) - 1} more" * (len(others) > 1)
        raise AccessError(f"token {token.name} may not change {others[0]}{more}, which shares the pool of {service}")


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
