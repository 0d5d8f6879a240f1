"""The manager's answers to requests, one function each: from a call to a model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lbmux.backends import override_commands
from lbmux.backends.override_commands import Change, OverrideError
from lbmux.backends.pool_overrides import members
from lbmux.bgp.announced import Announced
from lbmux.config.field_types import Model
from lbmux.manager import api_models as api
from lbmux.manager.authority import KeyPair, Subject, issue
from lbmux.manager.documents import Revision
from lbmux.manager.identity import fingerprint
from lbmux.manager.manager_state import Manager
from lbmux.manager.pool_state import REVISIONS, numbered, read_file
from lbmux.manager.proposals import Applied, Caller, CanaryError, Proposal
from lbmux.manager.records import list_events, list_revisions
from lbmux.manager.revisions import UnknownRevisionError, rollout, with_header
from lbmux.manager.route_overrides import RouteOrder, in_force
from lbmux.manager.store.store import Write
from lbmux.manager.tokens import (
    JOINS,
    TOKENS,
    AccessError,
    JoinToken,
    Token,
    check_secret,
    check_service,
    new_join_token,
    new_token,
    token_id,
)

EVENTS_SHOWN = 100


@dataclass(frozen=True)
class Call:
    """An authorised request; ``token`` or ``node`` identifies its sender."""

    manager: Manager
    caller: Caller
    query: Mapping[str, str]
    body: Any = None
    token: Token | None = None
    node: Subject | None = None

    def number(self, name: str) -> int | None:
        """Return a number in the query; raise AccessError with status 400 if it is not one."""
        text = self.query.get(name)
        if text is not None and not (text.isdecimal() and len(text) < 13):
            raise AccessError(f"{name} should be a number", 400)
        return None if text is None else int(text)

    def check_service(self, service: str | None, sharing: Collection[str] = ()) -> None:
        if self.token is not None:
            check_service(self.token, service, sharing)


async def status(call: Call) -> Model:
    return call.manager.status()


async def ca(call: Call) -> Model:
    return api.CaAnswer(pool=call.manager.pool_id, ca=call.manager.identity.ca.decode())


async def get_config(call: Call) -> Model:
    store, number = call.manager.store, call.number("revision")
    number = call.manager.state.revision if number is None else number
    entry = await store.get(numbered(REVISIONS, number))
    if entry is None:
        raise UnknownRevisionError(number)
    revision = Revision.model_validate_json(entry.value)
    text = with_header(await read_file(store, number), revision)
    return api.ConfigAnswer(revision=revision, file=text.decode())


async def apply(call: Call) -> Model:
    body: api.ApplyRequest = call.body
    call.check_service(body.service)
    if body.canary is not None:
        _check_canary(call.manager, body.canary)
    proposal = Proposal(
        body.file.encode(), body.name, body.service, body.message, force=body.force, dry_run=body.dry_run,
        canary=body.canary, soak_s=body.soak_s,
    )  # fmt: skip
    return _applied(await call.manager.pool.apply(proposal, call.caller))


async def rollback(call: Call) -> Model:
    body: api.RollbackRequest = call.body
    call.check_service(None)
    proposal = Proposal(b"", message=body.message, force=body.force, dry_run=body.dry_run)
    return _applied(await call.manager.pool.rollback(body.revision, proposal, call.caller))


async def revisions(call: Call) -> Model:
    reports = [one for one in call.manager.nodes.values() if one.connected]
    stored = await list_revisions(call.manager.store)
    lines = [api.RevisionLine(revision=one, rollout=rollout(one.number, reports)) for one in stored]
    return api.RevisionsAnswer(revisions=tuple(lines))


async def events(call: Call) -> Model:
    limit = call.number("limit")
    stored = await list_events(call.manager.store, EVENTS_SHOWN if limit is None else max(limit, 1))
    return api.EventsAnswer(events=tuple(stored))


async def overrides(call: Call) -> Model:
    stored = call.manager.state.stored
    return api.OverridesAnswer(version=stored.version, overrides=stored.overrides, routes=stored.routes)


async def override(call: Call) -> Model:
    body: api.OverrideRequest = call.body
    config = call.manager.state.config
    call.check_service(body.service, members(config, body.service) if config and body.service else ())
    now = call.manager.clock()
    until, deadline = (None if s is None else now + s for s in (body.for_s, body.deadline_s))
    pool = call.manager.pool
    stored = await pool.override(_change(body, now), call.caller, body.reason, until, deadline, force=body.force)
    return api.OverridesAnswer(version=pool.state.stored.version, overrides=tuple(stored))


async def announce(call: Call) -> Model:
    body: api.RouteRequest = call.body
    manager, config = call.manager, call.manager.state.config
    served = [one.name for one in config.services if one.vip == body.vip] if config else []
    call.check_service(served[0] if served else None, served)
    if body.node is not None and body.action == "withdraw":
        _check_announces(manager, body.node)
    wanted = Announced(is_held=True) if body.action == "withdraw" else in_force(body.announcement)
    until = None if body.for_s is None else manager.clock() + body.for_s
    order = RouteOrder(body.vip, body.node, wanted)
    routes = await manager.pool.announce(order, call.caller, body.reason, until)
    return api.OverridesAnswer(version=manager.pool.state.stored.version, routes=routes)


async def nodes(call: Call) -> Model:
    reports = call.manager.nodes
    return api.NodesAnswer(nodes=tuple(reports[name] for name in sorted(reports)))


async def tokens(call: Call) -> Model:
    entries = (await call.manager.store.read(TOKENS)).entries.values()
    stored = [Token.model_validate_json(one.value) for one in entries]
    return api.TokensAnswer(tokens=tuple(api.TokenLine(**one.model_dump(exclude={"digest"})) for one in stored))


async def make_token(call: Call) -> Model:
    body: api.TokenRequest = call.body
    now = call.manager.clock()
    until = None if body.for_s is None else now + body.for_s
    stored, text = new_token(body.name, body.role, now, body.services, until)
    write = Write(f"{TOKENS}{stored.id}", stored.model_dump_json().encode())
    what = f"token {body.name} ({stored.id}), {body.role}" + (f", for {', '.join(body.services)}" * bool(body.services))
    await call.manager.pool.record("token", call.caller, what, write)
    return api.TokenAnswer(id=stored.id, token=text)


async def revoke_token(call: Call) -> Model:
    number = call.query.get("id", "")
    entry = await call.manager.store.get(f"{TOKENS}{number}")
    if entry is None:
        raise AccessError(f"there is no token {number!r}", 404)
    name = Token.model_validate_json(entry.value).name
    await call.manager.pool.record("token", call.caller, f"token {name} ({number}) revoked", Write(entry.key, None))
    return api.Done()


async def make_join_token(call: Call) -> Model:
    body: api.JoinTokenRequest = call.body
    manager = call.manager
    ca_fingerprint = fingerprint(manager.identity.ca)
    stored, text = new_join_token(body.name, body.role, manager.clock() + body.for_s, ca_fingerprint)
    write = Write(f"{JOINS}{stored.id}", stored.model_dump_json().encode())
    await manager.pool.record("token", call.caller, f"join token for {body.role} {body.name}", write)
    return api.TokenAnswer(id=stored.id, token=text)


async def join(call: Call) -> Model:
    """Admit a node by its one-time token, which is deleted by the commit that records it."""
    body: api.JoinRequest = call.body
    manager = call.manager
    authority = _authority(manager)
    entry = await manager.store.get(f"{JOINS}{token_id(body.token)}")
    stored = None if entry is None else JoinToken.model_validate_json(entry.value)
    check_secret(body.token, stored, manager.clock())
    assert entry is not None and stored is not None  # otherwise the handshake fails
    subject = Subject(manager.pool_id, stored.role, stored.name)
    certificate = issue(authority, body.request.encode(), subject, _date(manager))
    caller = Caller(stored.name, call.caller.origin)
    await manager.pool.record("join", caller, f"{stored.role} {stored.name} joined", Write(entry.key, None))
    return _certified(manager, subject, certificate)


async def renew(call: Call) -> Model:
    """Sign a new certificate for a node that has a valid one."""
    body: api.RenewRequest = call.body
    assert call.node is not None  # the endpoint asks for a certificate
    certificate = issue(_authority(call.manager), body.request.encode(), call.node, _date(call.manager))
    return _certified(call.manager, call.node, certificate)


def _check_canary(manager: Manager, mux: str) -> None:
    """Raise CanaryError if a node is not a mux that can be compared with another one."""
    muxes = {one.node for one in manager.nodes.values() if one.connected and one.role == "mux"}
    if mux not in muxes:
        raise CanaryError(f"mux {mux} is not connected; `lbmux show muxes` lists the muxes")
    if len(muxes) < 2:
        raise CanaryError(f"no other mux is connected to compare {mux} with")


def _check_announces(manager: Manager, node: str) -> None:
    """Raise AccessError if a node is not known, or announces nothing."""
    if (report := manager.nodes.get(node)) is None or report.role == "agent":
        raise AccessError(f"there is no mux or edge {node}; `lbmux show nodes` lists the nodes", 404)


def _applied(applied: Applied) -> Model:
    return api.ApplyAnswer(
        revision=applied.revision, changes=applied.changes, needs_force=applied.needs_force, impact=applied.impact
    )


def _certified(manager: Manager, subject: Subject, certificate: bytes) -> Model:
    return api.CertificateAnswer(
        pool=subject.pool, name=subject.name, certificate=certificate.decode(), ca=manager.identity.ca.decode()
    )


def _authority(manager: Manager) -> KeyPair:
    authority = manager.identity.authority
    if authority is None:
        raise AccessError("this manager has no CA key (ca.key): ask one that has it", 503)
    return authority


def _change(body: api.OverrideRequest, now: float) -> Change:
    if body.deadline_s is not None and body.action != "drain":
        raise OverrideError("deadline_s", "only drain has a deadline")
    if body.action == "add":
        if body.service is None or body.added is None:
            raise OverrideError("add", "`service` and `added` are needed")
        return override_commands.add(body.service, body.added, now)
    if body.host is not None and body.backend is None and body.action != "weight":
        state = None if body.action == "enable" else body.action
        return override_commands.set_admin_state_of_host(state, body.host, body.service, now)
    if body.backend is None and (body.service is None or body.action == "weight"):
        raise OverrideError(body.action, "`backend` is needed")
    if body.action == "weight":
        assert body.backend is not None
        return override_commands.set_weight(body.weight, body.backend, body.service, now)
    state = None if body.action == "enable" else body.action
    return override_commands.set_admin_state(state, body.backend, body.service, now)


def _date(manager: Manager) -> datetime:
    return datetime.fromtimestamp(manager.clock(), UTC)
