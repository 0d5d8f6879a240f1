"""Overrides of announcements as the manager stores them: a VIP, or all, withdrawn or announced in another way.  Pure.

An override concerns one node, or all muxes and edges. A node follows those that concern it, all at once: it withdraws a
VIP as long as one of them does.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from lbmux.addresses import Address
from lbmux.bgp.announced import UNCHANGED, Announced, Commands, described
from lbmux.config.models import Config
from lbmux.errors import LbmuxError
from lbmux.manager.documents import Announcement, RouteOverride
from lbmux.manager.stored_overrides import Terms

Routes = tuple[RouteOverride, ...]


class UnknownVipError(LbmuxError):
    """No service has the VIP."""

    vip: Address

    def __str__(self) -> str:
        return f"no service has the VIP {self.vip}; `lbmux show services` lists them"


@dataclass(frozen=True)
class RouteOrder:
    """A command about a VIP (None: all) at a node (None: all muxes and edges)."""

    vip: Address | None
    node: str | None
    wanted: Announced


def changed_routes(stored: Routes, config: Config, order: RouteOrder, terms: Terms, now: float) -> Routes:
    """Return all overrides after a command; raise UnknownVipError.

    It replaces those of its VIP at its node, a command about all VIPs or all nodes those of each one.
    """
    if order.vip is not None and order.vip not in {service.vip for service in config.services}:
        raise UnknownVipError(order.vip)
    others = [one for one in stored if not _is_within(one, order)]
    if order.wanted != UNCHANGED:
        others.append(
            RouteOverride(
                vip=order.vip, node=order.node, announcement=stored_form(order.wanted), since=now, by=terms.by,
                reason=terms.reason, until=terms.until,
            )
        )  # fmt: skip
    return tuple(others)


def _is_within(one: RouteOverride, order: RouteOrder) -> bool:
    return order.vip in (None, one.vip) and order.node in (None, one.node)


def concerned(stored: Routes, order: RouteOrder) -> Routes:
    """Return the overrides that act on what a command is about."""
    of_vip = [one for one in stored if order.vip is None or one.vip in (None, order.vip)]
    return tuple(one for one in of_vip if order.node is None or one.node in (None, order.node))


def commands_at(stored: Collection[RouteOverride], node: str) -> Commands:
    """Return a node's changes to its announcements."""
    commands = dict[Address | None, Announced]()
    for one in stored:
        if one.node in (None, node):
            commands[one.vip] = commands.get(one.vip, UNCHANGED) & in_force(one.announcement)
    return commands


def fitting_routes(stored: Routes, config: Config) -> Routes:
    """Drop overrides of VIPs that a new file lacks."""
    vips = {service.vip for service in config.services}
    return tuple(one for one in stored if one.vip is None or one.vip in vips)


def unexpired_routes(stored: Routes, now: float) -> Routes:
    """Return the overrides without those that have ended."""
    return tuple(one for one in stored if one.until is None or one.until > now)


def in_force(stored: Announcement) -> Announced:
    return Announced(stored.held, stored.prepended, stored.length, stored.length6, stored.black_hole)


def stored_form(changes: Announced) -> Announcement:
    return Announcement(
        held=changes.is_held, prepended=changes.prepended, length=changes.length, length6=changes.length6,
        black_hole=changes.is_black_hole,
    )  # fmt: skip


def describe_announcement(one: RouteOverride) -> str:
    """Return what an override does: `withdrawn`."""
    return described(in_force(one.announcement))


def describe_route(one: RouteOverride) -> str:
    """Return what an override does, and where: `192.0.2.1: withdrawn at mux1`."""
    vip, node = _scope(one)
    return f"{vip}: {describe_announcement(one)} at {node}"


def describe_differences(before: Routes, after: Routes) -> Iterator[str]:
    """Describe how overrides changed, for the log of events."""
    yield from (describe_route(one) for one in after if one not in before)
    changed = {(one.vip, one.node) for one in after}
    for one in before:
        if (one.vip, one.node) not in changed:
            vip, node = _scope(one)
            yield f"{vip}: announced as in the file at {node}"


def _scope(one: RouteOverride) -> tuple[str, str]:
    return str(one.vip or "all VIPs"), one.node or "all muxes and edges"
