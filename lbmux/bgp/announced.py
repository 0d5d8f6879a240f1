"""What a speaker announces: the wanted routes, with an operator's changes to all of them or to those of one VIP."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lbmux.addresses import Address
from lbmux.bgp.bgp_settings import Neighbour, Prefix, Route, sorted_prefixes
from lbmux.plurals import counted


@dataclass(frozen=True)
class Announced:
    """An operator's changes to announcements. ``is_held``: nothing is announced. ``prepended``: how often the own AS is
    added to the path.

    ``length`` and ``length6``: the length of the announced prefix around each VIP, by default the whole address. A
    prefix longer than other sites' attracts their users. ``is_black_hole``: neighbours are asked to drop the packets
    (RFC 7999).
    """

    is_held: bool = False
    prepended: int = 0
    length: int = 32
    length6: int = 128
    is_black_hole: bool = False

    def __and__(self, other: "Announced") -> "Announced":
        """Return the changes of both: a route is announced only if both announce it."""
        return Announced(
            self.is_held or other.is_held, max(self.prepended, other.prepended), min(self.length, other.length),
            min(self.length6, other.length6), self.is_black_hole or other.is_black_hole,
        )  # fmt: skip


UNCHANGED = Announced()
Commands = Mapping[Address | None, Announced]
"""An operator's changes by VIP; None: those that apply to all VIPs. VIPs without changes are missing."""


def after_command(commands: Commands, vip: Address | None, wanted: Announced) -> Commands:
    """Return the changes after a command about a VIP, or about all (None): it replaces earlier ones."""
    others = {} if vip is None else {one: changes for one, changes in commands.items() if one != vip}
    return others if wanted == UNCHANGED else {**others, vip: wanted}


def described(changes: Announced) -> str:
    """Return what an operator's changes do: `withdrawn`, or how routes are announced."""
    if changes.is_held:
        return "withdrawn"
    if changes.is_black_hole:
        return "announced as a black hole"
    prepended = f", with the own AS prepended {counted(changes.prepended, 'time')}" if changes.prepended else ""
    return f"announced as /{changes.length} and /{changes.length6}{prepended}"


def announced_routes(commands: Commands, wanted: Iterable[Route]) -> frozenset[Route]:
    """Return the announced routes. A prefix around several VIPs is a last resort if all of them are.

    A black hole is announced as the whole address, so that it is no other VIP's.
    """
    if not commands:
        return frozenset(wanted)
    of_all, routes = commands.get(None, UNCHANGED), dict[Prefix, Route]()
    for route in wanted:
        changes = of_all & commands.get(route.prefix.network_address, UNCHANGED)
        if changes.is_held:
            continue
        if changes.is_black_hole or route.is_black_hole:
            routes[route.prefix] = route._replace(prepended=changes.prepended, is_black_hole=True)
            continue
        longest, prefix = changes.length if route.prefix.version == 4 else changes.length6, route.prefix
        if longest < prefix.prefixlen:
            prefix = prefix.supernet(new_prefix=longest)
        other = routes.get(prefix, Route(prefix, True, changes.prepended))
        is_last_resort = other.is_last_resort and route.is_last_resort
        routes[prefix] = Route(prefix, is_last_resort, min(other.prepended, changes.prepended))
    return frozenset(routes.values())


@dataclass(frozen=True)
class BgpState:
    """The routes that a speaker announces, its sessions, and an operator's changes to the announcements."""

    speaker: str
    routes: Collection[Route]
    neighbours: Sequence[Neighbour]
    commands: Commands = field(default_factory=dict)

    @property
    def prefixes(self) -> list[str]:
        return sorted_prefixes(route.prefix for route in self.routes)

    @property
    def last_resort(self) -> list[str]:
        """The prefixes that are announced with a longer AS path."""
        return sorted_prefixes(route.prefix for route in self.routes if route.is_last_resort)

    @property
    def withdrawn(self) -> list[Address]:
        """The VIPs that were withdrawn one by one."""
        return [vip for vip, changes in self.commands.items() if vip is not None and changes.is_held]
