"""Filters of flows: tcpdump's grammar, as far as it applies to flows, compiled to tests of whole chunks.

    src host 198.51.100.7 and not port 80 or (service web and idle > 5)

=======================================  ==========================================================================
[src|dst] [host] ADDRESS                 the client (src), the VIP (dst), either of them
[src|dst] net ADDRESS/LENGTH             the same, by prefix
[src|dst] port NUMBER                    the client's port, the VIP's
[src|dst] portrange FIRST-LAST
tcp, udp, ip, ip6                        tcp port 80 is tcp and port 80
service NAME, backend NAME               by the configuration's names; backend SERVICE/BACKEND, too
state trusted|untrusted|closing
idle < | <= | > | >= | = | != SECONDS
=======================================  ==========================================================================

`and` (`&&`), `or` (`||`), `not` (`!`), parentheses; as in tcpdump `and` and `or` have the same weight and bind from the
left, and a value alone takes the words before it: `port 80 or 443`.
"""

import operator
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import MAPPED_LOW, to_pair
from lbmux.config.models import Backend, Service
from lbmux.errors import LbmuxError
from lbmux.tables.live_flows import STATES, TICK_S, Flows, Test
from lbmux.tables.snapshot import Snapshot

Network = IPv4Network | IPv6Network
Mask = NDArray[np.bool_]

TOKEN = re.compile(r"\s*(&&|\|\||<=|>=|!=|==|[()<>=!]|[^\s()<>=!&|]+)")
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "==": operator.eq,
    "!=": operator.ne,
}  # fmt: skip
DIRECTIONS, TYPES = ("src", "dst"), ("host", "net", "port", "portrange")
PROTOCOLS, OTHERS = ("tcp", "udp", "ip", "ip6"), ("service", "backend", "state", "idle")
WORDS = (*DIRECTIONS, *TYPES, *PROTOCOLS, *OTHERS, "and", "or", "not")
END = ""
MOST_WORDS = 256
"""Maximum number of words in a filter: each may be a level of nesting, and of the call stack."""
MOST_SHOWN = 60


class FilterError(LbmuxError):
    """A filter with an error at offset ``at`` of its ``text``."""

    text: str
    at: int
    reason: str

    def __str__(self) -> str:
        return f"filter: {self.reason}\n  {self.text}\n  {' ' * self.at}^"


def parse(text: str, snapshot: Snapshot) -> Test:
    """Compile a filter; raise FilterError if it is invalid or has an unknown name."""
    return Parser(text, snapshot).whole()


class Parser:
    """Recursive descent over tokens; ``_kind`` is the (direction, type) of a value without keywords."""

    def __init__(self, text: str, snapshot: Snapshot) -> None:
        self._text, self._snapshot = text, snapshot
        self._tokens = tokens(text)
        self._next = 0
        self._kind: tuple[str, str] | None = None  # direction, type

    def whole(self) -> Test:
        test = self._expression()
        if self._peek() != END:
            raise self._error(f"{self._peek()!r} is not expected here: and, or?")
        return test

    def _expression(self) -> Test:
        test = self._term()
        while True:
            if self._take("and", "&&"):
                test = _both(np.logical_and, test, self._term())
            elif self._take("or", "||"):
                test = _both(np.logical_or, test, self._term())
            else:
                return test

    def _term(self) -> Test:
        if self._take("not", "!"):
            inner = self._term()
            return lambda flows: ~inner(flows)
        if self._take("("):
            inner = self._expression()
            if not self._take(")"):
                raise self._error("a parenthesis is not closed")
            return inner
        if protocol := self._take(*PROTOCOLS):
            test = self._protocol(protocol)
            if self._peek() in (*DIRECTIONS, *TYPES):
                return _both(np.logical_and, test, self._primitive())
            return test
        return self._primitive()

    def _primitive(self) -> Test:
        if word := self._take(*OTHERS):
            self._kind = None
            test: Test = getattr(self, f"_{word}")()
            return test
        direction, kind = self._take(*DIRECTIONS), self._take(*TYPES)
        if direction or kind:
            self._kind = (direction, kind or "host")
        elif self._kind is None:
            if self._peek() == END:
                raise self._error("the filter ends too early")
            if not is_address(self._peek()):
                raise self._error(f"unknown word {self._peek()!r}: use one of {', '.join(WORDS)}")
            self._kind = ("", "host")
        direction, kind = self._kind
        source, destination = getattr(self, f"_{kind}")()
        if not direction:
            return _both(np.logical_or, source, destination)
        chosen: Test = source if direction == "src" else destination
        return chosen

    # Each of the four types has two tests, of the source and of the destination.

    def _host(self) -> tuple[Test, Test]:
        return self._network(slash=False)

    def _net(self) -> tuple[Test, Test]:
        return self._network(slash=True)

    def _network(self, slash: bool) -> tuple[Test, Test]:
        text = self._value("an address or a network" if slash else "an address")
        try:
            network = ip_network(text) if slash else ip_network(ip_address(text))
        except ValueError as error:
            raise self._error(str(error), back=1) from error
        return _client_in(network), self._of_owner(lambda service, _: service.vip in network)

    def _port(self) -> tuple[Test, Test]:
        port = self._number(self._value("a port"), 65535)
        return self._ports(port, port)

    def _portrange(self) -> tuple[Test, Test]:
        first, _, last = self._value("two ports, FIRST-LAST").partition("-")
        return self._ports(self._number(first, 65535), self._number(last, 65535))

    def _ports(self, first: int, last: int) -> tuple[Test, Test]:
        def source(flows: Flows) -> Mask:
            port = (flows.entries["ports"] & 0xFFFF).astype(np.uint16).byteswap()
            return np.asarray((port >= first) & (port <= last))

        def destination(flows: Flows) -> Mask:
            ports = flows.ports()
            return np.asarray((ports >= first) & (ports <= last))

        return source, destination

    # Each remaining primitive has one test.

    def _protocol(self, name: str) -> Test:
        if name in ("ip", "ip6"):
            return self._of_owner(lambda service, _: service.vip.version == (4 if name == "ip" else 6))
        return self._of_owner(lambda service, _: service.protocol == name)

    def _service(self) -> Test:
        name = self._known("service", [service.name for service in self._snapshot.services])
        return self._of_owner(lambda service, _: service.name == name)

    def _backend(self) -> Test:
        pairs = [(s.name, b.name) for s, b in self._snapshot.owners.values()]
        name = self._known("backend", [b for _, b in pairs] + [f"{s}/{b}" for s, b in pairs])
        return self._of_owner(lambda service, backend: name in (backend.name, f"{service.name}/{backend.name}"))

    def _state(self) -> Test:
        name = self._known("state", list(STATES.values()))
        number = next(number for number, label in STATES.items() if label == name)
        return lambda flows: np.asarray(flows.entries["state"] == number)

    def _idle(self) -> Test:
        compare = COMPARISONS.get(self._peek())
        if compare is None:
            raise self._error("idle is compared by one of " + " ".join(COMPARISONS))
        self._next += 1
        text = self._value("seconds")
        try:
            ticks = float(text.removesuffix("s")) / TICK_S
        except ValueError:
            raise self._error(f"{text!r} is not a number of seconds", back=1) from None
        return lambda flows: np.asarray(compare(flows.idle_ticks(), ticks))

    def _of_owner(self, matches: Callable[[Service, Backend], bool]) -> Test:
        """Return a test by the flow's row, decided once for each row."""
        rows = np.zeros(len(self._snapshot.ranks), np.bool_)
        for row, (service, backend) in self._snapshot.owners.items():
            rows[row] = matches(service, backend)
        return lambda flows: np.asarray(rows[flows.entries["target"]])

    def _known(self, kind: str, names: list[str]) -> str:
        name = self._value(f"a {kind}")
        if name not in names:
            listed = ", ".join(dict.fromkeys(names[:10])) + (", …" if len(names) > 10 else "")
            raise self._error(
                f"unknown {kind} {name!r}: use one of {listed}"
                if listed
                else f"unknown {kind} {name!r}: there is none",
                back=1,
            )
        return name

    def _number(self, text: str, most: int) -> int:
        if not text.isdecimal() or len(text) > len(str(most)) or int(text) > most:
            raise self._error(f"{text!r} is not a number from 0 to {most}", back=1)
        return int(text)

    def _value(self, expected: str) -> str:
        token = self._peek()
        if token == END or not (token[0].isalnum() or token[0] == ":"):
            raise self._error(f"{expected} is missing")
        self._next += 1
        return token

    def _peek(self) -> str:
        return self._tokens[self._next][0]

    def _take(self, *words: str) -> str:
        """Take the next token if it is one of these; otherwise return an empty text."""
        token = self._peek()
        if token not in words:
            return ""
        self._next += 1
        return token

    def _error(self, reason: str, back: int = 0) -> FilterError:
        return FilterError(self._text, self._tokens[self._next - back][1], reason)


def tokens(text: str) -> list[tuple[str, int]]:
    """Return the tokens with their offsets, and END after the last one. Raise FilterError for any other character."""
    with_offsets, at, end = list[tuple[str, int]](), 0, len(text.rstrip())
    while at < end:
        match = TOKEN.match(text, at)
        if match is None:
            unexpected = text[at:].split()[0]
            raise FilterError(text, text.index(unexpected, at), f"unexpected {unexpected!r}")
        with_offsets.append((match[1], match.start(1)))
        if len(with_offsets) > MOST_WORDS:
            raise FilterError(text[:MOST_SHOWN] + "…", 0, f"more than {MOST_WORDS} words")
        at = match.end()
    return [*with_offsets, (END, end)]


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _both(combine: Callable[[Mask, Mask], Mask], left: Test, right: Test) -> Test:
    return lambda flows: combine(left(flows), right(flows))


def masked(network: Network) -> tuple[int, int, int, int]:
    """Return the halves of the network's address and of its mask, as loaded."""
    bits = network.prefixlen + 128 - network.max_prefixlen
    mask = ((1 << bits) - 1 << 128 - bits).to_bytes(16, "big")
    halves = (int.from_bytes(half, "little") for half in (mask[:8], mask[8:]))
    return (*to_pair(network.network_address), *halves)  # type: ignore[return-value]


def _client_in(network: Network) -> Test:
    """Return a test of an address, by its loaded halves and those of the prefix's mask."""
    high, low, mask_high, mask_low = map(np.uint64, masked(network))

    def inside(flows: Flows) -> Mask:
        entries = flows.entries
        within = ((entries["low"] & mask_low) == low) & ((entries["high"] & mask_high) == high)
        if network.version == 6:  # ::/0 is not for IPv4, whose mapped form it would cover
            within &= (entries["high"] != 0) | ((entries["low"] & np.uint64(0xFFFFFFFF)) != MAPPED_LOW)
        return np.asarray(within)

    return inside
