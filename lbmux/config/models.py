"""The configuration that every mux and agent shares, as frozen models.

Nothing of one machine is in it (interface, own address, driver): those are options of the commands. A reload
makes a new `Config` and compares; nobody changes one. `config_file` reads it from YAML; the table writer
makes tables of it. What a reader leaves out (names, ports, idle times) is filled in here.

Checks that span several items (unique names, say) name the item at fault, and look at the sound items of a
list even where it has broken ones, so that all that is wrong is said at once.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_serializer,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from lbmux.addresses import Address
from lbmux.config.address_loops import Fault, loops
from lbmux.config.field_types import Model, Name, Port, PortOrAny, Prefix, Routed, Seconds, Share, Unicast, said
from lbmux.config.health_models import PROBE_PROTOCOLS, Health
from lbmux.config.slowpath_models import OnNoBackend, SlowPath
from lbmux.config.traffic_models import HashOf, Quic, ServerId, Tunnel, TunnelKind

MAX_SERVICES = 1024
MAX_BACKENDS = 16384
MAX_SLOTS = 2_000_003
MAX_PREFIXES = 131_072
"""Of all access lists, each of whose prefixes costs two rows at most."""
MAX_PORTS = 131_072
"""Of all services together."""

BackendKey = tuple[str, str]
"""The names of a service and of a backend of it."""
Item = TypeVar("Item")


class Maglev(Model):
    """The table that spreads new flows (Maglev, section 3.4)."""

    size: Annotated[int, Field(strict=True, gt=2, le=MAX_SLOTS)] = 65537
    """Slots per service: a prime, best over 100 times the backends of the largest service."""
    seed: Annotated[int, Field(strict=True, ge=0, le=0xFFFFFFFF)] = 1
    """Seed of the hash that picks a slot; the same on every mux."""

    @field_validator("size")
    @classmethod
    def _prime(cls, size: int) -> int:
        if any(size % divisor == 0 for divisor in range(2, int(size**0.5) + 1)):
            raise PydanticCustomError("prime", "should be a prime number (65537, say)")
        return size


class FlowLimits(Model):
    """The size of the flow table, and how much of it each class of flows may fill."""

    limit: Annotated[int, Field(strict=True, ge=1024, le=16_777_216)] = 1_048_576
    """Flows that a mux remembers at most; its memory is taken at the start."""
    trusted_share: Share = 0.75
    """Share of the table for flows that were seen twice or more."""
    untrusted_share: Share = 1.0
    """Share of the table for flows that were seen once (a SYN flood's, say); they never displace the others."""


class Idle(Model):
    """After how long without a packet a flow is forgotten."""

    untrusted_s: Seconds = 10
    """Idle time of a flow that was seen once, in seconds."""
    tcp_s: Seconds = 900
    """Idle time of a TCP connection, in seconds."""
    fin_s: Seconds = 120
    """Idle time of a TCP connection after a FIN or RST of its client, in seconds."""
    udp_s: Seconds = 300
    """Idle time of a UDP flow that was seen twice or more, in seconds."""


class Backend(Model):
    """A server behind a service."""

    # default_factory, since the value that stands in until the service fills it in is no part of the schema.
    name: Name = Field(default_factory=str)
    """Name, unique in the service; the Maglev table is built from it. Default: DIP:PORT."""
    dip: Unicast
    """The server's own address."""
    port: Port = Field(default_factory=int)
    """The server's port. Default: the service's."""
    weight: Annotated[int, Field(strict=True, ge=0, le=65535)] = 1
    """Share of the new flows, against the other backends' weights; 0: no new flows."""
    host: Unicast | None = None
    """Where its host agent takes the tunnel's packets. Default: the DIP."""
    tunnel: TunnelKind | None = None
    """How packets travel to its host. Default: the service's."""
    server_id: ServerId | None = None
    """What names it in QUIC connection ids: as many bytes, in hexadecimal, as the service's `quic.id_bytes`."""

    @model_serializer(mode="wrap")
    def _as_written(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As in a file, which can be read again: a port that is left to the service is not in it."""
        plain: dict[str, Any] = written(self)
        return plain if plain.get("port") else {name: value for name, value in plain.items() if name != "port"}

    @property
    def tunnel_to(self) -> Address:
        """Destination of the outer header."""
        return self.host or self.dip

    def filled(self, port: int) -> "Backend":
        port = self.port or port
        return self.model_copy(update={"port": port, "name": self.name or f"{self.dip}:{port}"})


class Service(Model):
    """What clients see: a VIP, a protocol and a port, and the backends that serve it."""

    name: Name
    """Name, unique in the file."""
    vip: Routed
    """The address that clients connect to."""
    protocol: Literal["tcp", "udp"]
    """Transport protocol."""
    port: PortOrAny
    """The port that clients connect to; `any`: every one that no other service of the VIP has."""
    port_to: Port | None = None
    """The last port, where the service has a range of them."""
    hash: HashOf = "five_fields"
    """What of a packet picks its slot: the same for all means the same backend."""
    tunnel: TunnelKind | None = None
    """How packets travel to the hosts. Default: the file's."""
    allow: tuple[Prefix, ...] = ()
    """Source prefixes that may use the service; where there are some, nobody else may. The longest prefix counts."""
    deny: tuple[Prefix, ...] = ()
    """Source prefixes that may not use the service. The longest prefix counts."""
    new_flows_per_s: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    """New flows a second that a mux remembers; what is over is forwarded by the Maglev table, without an entry."""
    quic: Quic | None = None
    """How server ids stand in QUIC connection ids (draft-ietf-quic-load-balancers, in the clear)."""
    idle: Idle = Idle()
    """Idle times that differ from the defaults of the file."""
    health: Health | None = None
    """How each mux finds out which backends are healthy. Default: all are taken to be."""
    on_down: Literal["reset", "rehash"] = "reset"
    """What becomes of the TCP connections of a backend that dies. `reset`: the mux makes each client acknowledge what
    it has, and ends its connection if no host has it (by `slowpath.second_chance`). `rehash`: another backend gets its
    packets as they are, and hosts are never asked about a connection of this service: for servers that share
    connections or end unknown ones."""
    on_no_backend: OnNoBackend = "reject"
    """What becomes of packets while no backend takes new flows. `reject`: the client gets a TCP reset or ICMP port
    unreachable, and the VIP stays announced. `drop`: the client gets nothing. `withdraw`: like `reject`, and where all
    services of the VIP are so, the mux announces the VIP with a longer AS path: routers prefer muxes and sites that
    have backends, and come back to it where there are none."""
    backends: tuple[Backend, ...]
    """The servers; with none, see `on_no_backend`."""

    @field_validator("backends", mode="wrap")
    @classmethod
    def _consistent(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> tuple[Backend, ...]:
        sound, faults = _sound_items(value, handler, Backend)
        port = 0 if info.data.get("port_to") else info.data.get("port", 0)
        sound = {at: backend.filled(port) for at, backend in sound.items()}
        faults += _repeated(sound, lambda backend: backend.name, "name", "another backend has the name {}")
        faults += _repeated(
            sound,
            lambda backend: backend.tunnel_to,
            None,
            "two backends of one service behind one host address ({}) cannot be told apart: leave `host` out",
        )
        faults += _of_other_families(sound, info.data.get("vip"))
        faults += _server_ids(sound, info.data.get("quic"))
        faults += _nothing_to_probe(sound, info.data.get("health"))
        if sound and len(sound) == len(value) and not any(backend.weight for backend in sound.values()):
            faults.append(((), "at least one backend should have a weight above 0"))
        return _tuple_of(sound, faults)

    @field_validator("health")
    @classmethod
    def _takes_the_services_way(cls, value: Health | None, info: ValidationInfo) -> Health | None:
        """Probes through the tunnel are flows of the service."""
        if value is None or value.through == "direct" or "port" not in info.data:
            return value
        protocol, port = info.data.get("protocol"), info.data["port"]
        if PROBE_PROTOCOLS[value.kind] != protocol:
            said = {"kind": value.kind, "protocol": str(protocol)}
            raise PydanticCustomError("kind", "`kind: {kind}` is no way through a {protocol} service's tunnel", said)
        if port == 0 and value.port is None:
            raise PydanticCustomError("port", "`port` is missing: the service has any")
        if port and value.port and value.port not in range(port, (info.data.get("port_to") or port) + 1):
            raise PydanticCustomError("port", "`port` is none of the service's, whose way the tunnel is")
        return value

    @field_validator("port_to")
    @classmethod
    def _behind_the_first(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value <= info.data.get("port", 0):
            raise PydanticCustomError("port_to", "should be above `port`")
        if value is not None and info.data.get("port") == 0:
            raise PydanticCustomError("port_to", "has no meaning beside `port: any`")
        return value

    @property
    def idle_s(self) -> int:
        """Idle time of an established flow."""
        return self.idle.tcp_s if self.protocol == "tcp" else self.idle.udp_s

    @property
    def port_text(self) -> str:
        """As people say it: one, FIRST-LAST, or any."""
        return f"{self.port}-{self.port_to}" if self.port_to else str(self.port or "any")

    @property
    def ports(self) -> range:
        """All of them; 0 stands for any."""
        return range(self.port, (self.port_to or self.port) + 1)


class Config(Model):
    """Configuration of lbmux, shared by every mux and host agent."""

    muxes: Annotated[tuple[Routed, ...], Field(max_length=1024)] = ()
    """Outer source addresses that host agents accept."""
    maglev: Maglev = Maglev()
    """The table that spreads new flows."""
    flows: FlowLimits = FlowLimits()
    """Limits of the flow table."""
    idle: Idle = Idle()
    """Idle times of all services that do not set their own."""
    tunnel: Tunnel = Tunnel()
    """How packets travel from muxes to hosts."""
    slowpath: SlowPath = SlowPath()
    """Pings, ICMP, fragments, and packets that are too big for the way to the host."""
    services: Annotated[tuple[Service, ...], Field(max_length=MAX_SERVICES)]
    """What is balanced."""

    @field_validator("services", mode="wrap")
    @classmethod
    def _consistent(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> tuple[Service, ...]:
        sound, faults = _sound_items(value, handler, Service)
        faults += _repeated(sound, lambda service: service.name, "name", "another service has the name {}")
        faults += _repeated(
            sound,
            lambda service: f"{service.vip} {service.protocol} {service.port}",
            None,
            "another service has {}: VIP, protocol and port together should be unique",
        )
        if "maglev" in info.data:
            size = info.data["maglev"].size
            rule = f"than maglev.size ({size}), which should be a prime over 100 times the backends"
            faults += [
                ((at, "backends"), f"there should be fewer backends ({len(service.backends)} now) {rule}")
                for at, service in sound.items()
                if len(service.backends) >= size
            ]
        faults += _overlapping_ports(sound)
        faults += loops(info.data.get("muxes", ()), sound)
        if sum(len(service.ports) for service in sound.values()) > MAX_PORTS:
            faults.append(((), f"more ports than {MAX_PORTS} in all: use `port: any`"))
        if sum(len(service.allow) + len(service.deny) for service in sound.values()) > MAX_PREFIXES:
            faults.append(((), f"more prefixes than {MAX_PREFIXES} in all access lists"))
        faults += [((), why) for why in too_many(len(value), sum(len(service.backends) for service in sound.values()))]
        services = _tuple_of(sound, faults)
        defaults = info.data.get("idle", Idle())
        return tuple(
            service.model_copy(update={"idle": defaults.model_copy(update=service.idle.model_dump(exclude_unset=True))})
            for service in services
        )


def too_many(services: int, backends: int) -> Iterator[str]:
    """What is wrong with so many in one file."""
    if services > MAX_SERVICES:
        yield f"{services} services: {MAX_SERVICES} are the most"
    if backends > MAX_BACKENDS:
        yield f"{backends} backends in all: {MAX_BACKENDS} are the most"


def _of_other_families(backends: dict[int, Backend], vip: Address | None) -> Iterator[Fault]:
    for at, backend in backends.items():
        if vip is not None and backend.dip.version != vip.version:
            yield (at, "dip"), f"is IPv{backend.dip.version}, and the VIP is IPv{vip.version}: `host` may be either"


def _nothing_to_probe(backends: dict[int, Backend], health: Health | None) -> Iterator[Fault]:
    if health is None or health.through == "tunnel":
        return  # the service's port
    if health.port is None and health.kind not in ("icmp", "command"):
        for at, backend in backends.items():
            if backend.port == 0:
                yield (at, "port"), "is missing, and so is `health.port`: one of them is probed"


def _server_ids(backends: dict[int, Backend], quic: Quic | None) -> Iterator[Fault]:
    for at, backend in backends.items():
        if backend.server_id is not None and quic is None:
            yield (at, "server_id"), "has no meaning where the service has no `quic`"
        elif backend.server_id is not None and quic is not None and len(backend.server_id) != 2 * quic.id_bytes:
            yield (at, "server_id"), f"should have {quic.id_bytes} bytes, as `quic.id_bytes` says"
    named = {at: backend for at, backend in backends.items() if backend.server_id is not None}
    yield from _repeated(named, lambda backend: backend.server_id, "server_id", "another backend has {}")


def _overlapping_ports(services: dict[int, Service]) -> Iterator[Fault]:
    """Ranges of one VIP and protocol that have ports in common; a repeated first port is said elsewhere."""
    before: dict[Hashable, Service] = {}
    key = lambda at: (str(services[at].vip), services[at].protocol, services[at].port)  # noqa: E731 -- a function of three lines would say no more
    for at in sorted(services, key=key):
        service = services[at]
        last = before.get((service.vip, service.protocol))
        if last is not None and last.port < service.port <= last.ports[-1]:
            yield (at, "port"), f"is in the range of service {last.name}"
        if last is None or service.ports[-1] > last.ports[-1]:
            before[service.vip, service.protocol] = service


def kind_of(config: Config, service: Service, backend: Backend) -> TunnelKind:
    """How packets for a backend travel."""
    return backend.tunnel or service.tunnel or config.tunnel.kind


def _sound_items(
    value: Any, handler: ValidatorFunctionWrapHandler, model: type[Model]
) -> tuple[dict[int, Any], list[Fault]]:
    """The items of a list that are right by themselves, by place, and what is wrong with the others."""
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("list", "should be a list")
    sound: dict[int, Any] = {}
    faults: list[Fault] = []
    for at, item in enumerate(value):
        try:
            (sound[at],) = handler([item])
        except ValidationError as error:
            for one in error.errors(include_url=False):
                one["loc"] = one["loc"][1:]
                faults.append(((at, *one["loc"]), said(one, model)))
    return sound, faults


def _repeated(
    items: dict[int, Item], key: Callable[[Item], Hashable], field: str | None, message: str
) -> Iterator[Fault]:
    """A fault at every item whose key an earlier one has."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for at, item in items.items():
        places[key(item)].append(at)
    for repeated, (_, *later) in places.items():
        for at in later:
            yield ((at,) if field is None else (at, field)), message.format(repeated)


def _tuple_of(sound: dict[int, Item], faults: Iterable[Fault]) -> tuple[Item, ...]:
    """The items, unless there is any fault: then all of them as one error."""
    details = [
        InitErrorDetails(type=PydanticCustomError("fault", "{why}", {"why": why}), loc=at, input=None)
        for at, why in faults
    ]
    if details:
        raise ValidationError.from_exception_data("config", details)
    return tuple(sound.values())
