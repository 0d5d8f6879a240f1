"""Messages between a manager and a node, one JSON object each, over a WebSocket.

    node:     hello                          the versions it speaks, and the state that it has
    manager:  state                          a snapshot, and again after each change
    node:     report                         the state is in force, or refused with the reason (as xDS does)
    node:     stale                          the state's epoch is lower than one that the node has seen
    manager:  alive     node: alive          each second without anything else
    manager:  refused                        why the node is not served; the connection ends

and since protocol 2, requests of the control protocol that a manager relays (lbmux.manager.relay):

    manager:  ask                            a request's line
    node:     answer                         a line of its answers, or the end
    manager:  more, forget                   a line was passed on; the rest is not wanted

and the health of backends (lbmux.manager.pool_health):

    agent:    health                         states that it has found, all or those that changed
    manager:  view                           states of the whole pool that changed, to muxes; each second at least

Since protocol 3 each message has the pool's id, and a state the overrides of routes. Messages of another pool are
refused.

Both sides ignore fields that they do not know, so that a version and the one before it understand each other. A change
that this does not cover needs a new protocol version; the highest one that both speak is used.
"""

import zlib
from base64 import b64decode, b64encode
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lbmux.config.loader import MAX_BYTES
from lbmux.errors import LbmuxError
from lbmux.manager.documents import StoredOverrides

PROTOCOLS = (1, 2, 3)
"""The protocol versions that this version of lbmux speaks."""
ALIVE_S, SILENCE_S = 1.0, 3.0
"""Interval at which a manager sends something, and the silence after which a node tries another one, in seconds."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: str
    pool: str | None = None
    """The pool's id; null: the sender speaks an older protocol."""


class Hello(Message):
    kind: Literal["hello"] = "hello"
    protocols: tuple[int, ...] = PROTOCOLS
    role: Literal["mux", "agent", "edge"]
    version: str
    """The version of lbmux, for people."""
    epoch: int
    revision: int
    """The revision that the node has, with the epoch under which it got it; 0: none."""
    overrides: int
    digest: str = ""
    """Digest of the revision's file (`revisions.digest`); empty: none."""
    hosts: tuple[str, ...] = ()
    """The addresses where tunnels end, of an agent or of an edge that balances. An agent gets only what concerns them;
    empty: the whole file."""

    @property
    def serves_host(self) -> bool:
        """Whether it reports the health of its host's backends."""
        return self.role == "agent" or (self.role == "edge" and bool(self.hosts))

    @property
    def forwards(self) -> bool:
        """Whether it forwards to all backends, and so gets the view of their health."""
        return self.role == "mux" or (self.role == "edge" and bool(self.hosts))


class State(Message):
    kind: Literal["state"] = "state"
    pool: str
    epoch: int
    revision: int
    digest: str
    """Digest of the revision's file."""
    file: str | None
    """The file, compressed (zlib) and in base64, so that it is encoded once for all nodes; null: the node has it."""
    overrides: StoredOverrides


class Report(Message):
    kind: Literal["report"] = "report"
    revision: int
    overrides: int
    refused: str = ""
    """Why the node refuses the state; empty: it is in force."""
    in_force: int | None = None
    """The revision that is in force; null: the node does not say (protocol 1)."""


class Stale(Message):
    kind: Literal["stale"] = "stale"
    epoch: int
    """The highest that the node has seen."""


class Alive(Message):
    kind: Literal["alive"] = "alive"


class Refused(Message):
    kind: Literal["refused"] = "refused"
    reason: str


class Ask(Message):
    kind: Literal["ask"] = "ask"
    id: int
    line: str


class Answer(Message):
    kind: Literal["answer"] = "answer"
    id: int
    line: str | None
    """null: there are no more."""


class More(Message):
    kind: Literal["more"] = "more"
    id: int


class Forget(Message):
    kind: Literal["forget"] = "forget"
    id: int


HealthLine = tuple[str, str, bool, str]
"""A service, a backend, whether it is up, and the reason."""


LoadLine = tuple[str, str, float, float, float]
"""A service, a backend with `weight: auto`, and the fields of its load (lbmux.health.load)."""
WeightLine = tuple[str, str, int]
"""A service, a backend with `weight: auto`, and its weight."""


class Health(Message):
    kind: Literal["health"] = "health"
    whole: bool
    """Whether these are all states that the agent has."""
    lines: tuple[HealthLine, ...]
    loads: tuple[LoadLine, ...] = ()
    """Loads that are new."""
    back_in_s: float = 0.0
    """The agent stops, and its silence means nothing for this time, in seconds; 0: it does not stop."""


class View(Message):
    kind: Literal["view"] = "view"
    epoch: int
    number: int
    """Counts the primary's batches of changes, in its epoch."""
    lines: tuple[HealthLine, ...]
    kept: tuple[str, ...] | None = None
    """All services that keep their backends because too few are healthy (lbmux.manager.pool_watermarks); null: the
    manager's version leaves that to muxes."""
    weights: tuple[WeightLine, ...] | None = None
    """All weights that follow the load, as the primary decides them; null: as before."""
    agents: tuple[int, int] | None = None
    """The lowest revision and version of overrides that all agents have taken; null: it is not sent to nodes."""
    muxes: tuple[int, int] | None = None


AnyMessage = Annotated[
    Hello | State | Report | Stale | Alive | Refused | Ask | Answer | More | Forget | Health | View,
    Field(discriminator="kind"),
]
ADAPTER: TypeAdapter[AnyMessage] = TypeAdapter(AnyMessage)


class ProtocolError(LbmuxError):
    """The peer sent something that is not a message, or refuses to continue."""

    reason: str

    def __str__(self) -> str:
        return self.reason


def parse_message(text: str | bytes, pool: str) -> AnyMessage:
    """Return the message; raise ProtocolError, also if it is of another pool."""
    try:
        message = ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ProtocolError(f"not a message: {'.'.join(map(str, first['loc']))} {first['msg']}") from error
    check_pool(message, pool)
    return message


def check_pool(message: Message, pool: str) -> None:
    """Raise ProtocolError for a message of another pool."""
    if message.pool not in (None, pool):
        raise ProtocolError(f"a message ({message.kind}) of pool {message.pool}: this side belongs to pool {pool}")


def encode_message(message: Message, pool: str) -> str:
    """Return a message as it is sent."""
    return message.model_copy(update={"pool": pool}).model_dump_json()


def reason_of(error: Exception) -> str:
    """Return why a connection failed, in the same words each time: aiohttp's texts name objects."""
    return str(getattr(error, "os_error", error)) or type(error).__name__


def pack_file(text: bytes) -> str:
    """Return a file as it is sent."""
    return b64encode(zlib.compress(text)).decode()


def unpack_file(packed: str) -> bytes:
    """Return a file that was sent; raise ProtocolError, also if it is longer than a configuration may be."""
    try:
        text = zlib.decompressobj().decompress(b64decode(packed, validate=True), MAX_BYTES + 1)
    except (ValueError, zlib.error) as error:
        raise ProtocolError(f"the file is damaged: {error}") from error
    if len(text) > MAX_BYTES:
        raise ProtocolError(f"the file is longer than the limit of {MAX_BYTES} bytes")
    return text


def common_protocol(theirs: tuple[int, ...]) -> int:
    """Return the highest version that both sides speak; raise ProtocolError."""
    common = set(theirs) & set(PROTOCOLS)
    if not common:
        spoken = ", ".join(map(str, PROTOCOLS))
        raise ProtocolError(f"no common protocol: this side speaks {spoken}, the other {', '.join(map(str, theirs))}")
    return max(common)
