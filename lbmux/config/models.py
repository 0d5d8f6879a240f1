"""The configuration that all muxes and agents share, as frozen models.

Settings of one machine (interface, own address, driver) are command-line options instead. A reload makes a new
`Config` and compares; a `Config` never changes. `loader` reads it from YAML; `lbmux.tables` writes tables from it.
These models fill in defaults that depend on other fields (names, ports, idle times).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from lbmux.addresses import Address
from lbmux.config.address_loops import find_loops
from lbmux.config.field_types import (
    Model,
    Name,
    Port,
    PortOrAny,
    Prefix,
    Remote,
    Routed,
    Weight,
)
from lbmux.config.health_models import PROBE_PROTOCOLS, Health
from lbmux.config.item_faults import repeated, sound_items, tuple_of
from lbmux.config.overload_models import BlackHole
from lbmux.config.pools import at_pools, with_pools
from lbmux.config.service_checks import of_backends, of_list, overlapping_ports
from lbmux.config.slowpath_models import OnNoBackend, SlowPath
from lbmux.config.table_models import FlowLimits, Idle, Maglev, Slots, size_for
from lbmux.config.traffic_models import HashOf, Quic, ServerId, Tunnel, TunnelKind

MAX_SERVICES = 65_536
MAX_BACKENDS = 65_534
"""Limit of backends of all services together. A slot names a backend by 16 bits, of which two values are taken."""
MAX_PREFIXES = 131_072
"""Limit of prefixes in all access lists together; each prefix takes at most two rows."""
MAX_PORTS = 131_072
"""Limit of ports of all services together."""

BackendKey = tuple[str, str]
"""The name of a service, and the name of one of its backends."""


class Backend(Model):
    """One server of a service."""

    # default_factory keeps the placeholder, which the service replaces, out of the schema.
    name: Name = Field(default_factory=str)
    """Name, unique in the service. The Maglev table is built from names. Default: DIP:PORT."""
    dip: Remote
    """The server's own address."""
    port: Port = Field(default_factory=int)
    """The server's port. Default: the service's."""
    weight: Weight = 1
    """Share of new flows, relative to the weights of the other backends; 0: no new flows. `auto`: 100 at first, and
    then by the load that the host's agent reports, which needs `health: {by: agent}`."""
    host: Remote | None = None
    """Address of its host's agent, where the tunnel ends. Default: the DIP."""
    tunnel: TunnelKind | None = None
    """Encapsulation of packets to its host. Default: the service's."""
    server_id: ServerId | None = None
    """Its server ID in QUIC connection IDs, in hexadecimal; as long as `quic.id_bytes` of the service."""

    @model_serializer(mode="wrap")
    def _as_written(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a port that the service fills in, so that the result can be read again."""
        plain: dict[str, Any] = written(self)
        return plain if plain.get("port") else {name: value for name, value in plain.items() if name != "port"}

    @property
    def tunnel_to(self) -> Address:
        """Destination of the outer header."""
        return self.host or self.dip

    def filled(self, port: int) -> "Backend":
        """Return the backend of a service with this port."""
        port = self.port or port
        return self.model_copy(update={"port": port, "name": self.name or f"{self.dip}:{port}"})

    def in_pool(self) -> "Backend":
        """Return the backend of a named pool. Its services may differ in their ports, so its default name does not."""
        default = f"{self.dip}:{self.port}" if self.port else str(self.dip)
        return self.model_copy(update={"name": self.name or default})


def _pool(value: Any, handler: ValidatorFunctionWrapHandler) -> tuple[Backend, ...]:
    sound, faults = sound_items(value, handler, Backend)
    sound = {at: backend.in_pool() for at, backend in sound.items()}
    return tuple_of(sound, [*faults, *of_list(sound, len(value))])


Pool = Annotated[tuple[Backend, ...], WrapValidator(_pool)]
"""The backends of a named pool."""

FlowTracking = Literal["changed", "all", "none"]
NOT_GIVEN: Any = None
"""The value of `backends` in a file that leaves them out."""


class Service(Model):
    """A VIP, a protocol and a port, and the backends that serve them."""

    name: Name
    """Name, unique in the file."""
    vip: Routed
    """The address that clients connect to."""
    protocol: Literal["tcp", "udp"]
    """Transport protocol."""
    port: PortOrAny
    """The port that clients connect to; `any`: each port that no other service of the VIP uses."""
    port_to: Port | None = None
    """Last port of a range of ports that starts at `port`."""
    hash: HashOf = "five_fields"
    """Packet fields that pick the slot: packets with the same values go to the same backend."""
    tunnel: TunnelKind | None = None
    """Encapsulation of packets to the hosts. Default: `tunnel.kind` of the file."""
    allow: tuple[Prefix, ...] = ()
    """Source prefixes that may use the service; if there are any, all other sources are denied. The longest matching
    prefix wins."""
    deny: tuple[Prefix, ...] = ()
    """Source prefixes that may not use the service. The longest matching prefix wins."""
    new_flows_per_s: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    """Maximum number of new flows per second, and for each backend its weight's share of it; what exceeds either is
    dropped. A flow begins with a SYN, a QUIC Initial that names no server, or a datagram from a source that sent none
    for 34 s."""
    packets_per_s: Annotated[int, Field(strict=True, ge=1, le=100_000_000)] | None = None
    """Maximum number of packets per second; what exceeds it is dropped, new flows first."""
    share: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1
    """Weight of the VIP's share of a mux that gets more packets than `capacity_pps`; the largest one of the VIP's
    services counts. A VIP that needs less leaves the rest to the others."""
    flows: FlowTracking = "all"
    """Which flows get an entry in the flow table. `all`: every flow. `changed`: only flows whose Maglev slot has
    recently got another backend. The others need no look-up, so the cost does not grow with their number. `none`: no
    flow; a connection survives a change of its slot only by the second chance (see `slowpath.second_chance`)."""
    quic: Quic | None = None
    """Layout of server IDs in QUIC connection IDs (draft-ietf-quic-load-balancers, plaintext). A connection ID may name
    another backend than the slot's, so that `flows: changed` acts as `all`."""
    idle: Idle = Idle()
    """Idle timeouts that differ from the file's."""
    health: Health | None = None
    """Health checks of the backends. Default: none; all backends count as healthy."""
    on_down: Literal["reset", "rehash"] = "reset"
    """What happens to the TCP connections of a backend that fails. `reset`: the mux makes each client send an
    acknowledgement, and resets the connection if no host has it (see `slowpath.second_chance`). `rehash`: another
    backend gets the packets unchanged, and no host is asked for a connection of this service; use it for servers that
    share connections or reset unknown ones themselves."""
    on_no_backend: OnNoBackend = "reject"
    """What happens to packets while no backend takes new flows. `reject`: a SYN gets a TCP reset, a datagram gets ICMP
    Port Unreachable, and the VIP stays announced. Packets of connections in progress are dropped, so that these
    connections continue if their backends come back. `drop`: packets are dropped silently. `withdraw`: like `reject`;
    if this is true of all services of the VIP, the mux announces the VIP with a longer AS path. Routers then prefer
    muxes and sites that have backends, and fall back to this one if there are none."""
    maglev_size: Slots | None = None
    """Slots of its Maglev table, a prime number. Default: `maglev.size` of the file."""
    pool: Name | None = None
    """Name of a pool of the file (`pools`), whose backends serve this service. It replaces `backends`."""
    # default_factory keeps the placeholder, which `pool` replaces, out of the schema.
    backends: tuple[Backend, ...] = Field(default_factory=lambda: NOT_GIVEN, validate_default=True)
    """The servers; required without `pool`. If there are none, see `on_no_backend`."""

    @field_validator("backends", mode="wrap")
    @classmethod
    def _consistent(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> tuple[Backend, ...]:
        if value is NOT_GIVEN:
            if info.data.get("pool", "") is None:
                raise PydanticCustomError("missing_backends", "is missing: list the servers, or name a `pool`")
            return ()
        if info.data.get("pool") is not None:
            raise PydanticCustomError("pool", "does not apply: the service has `pool`")
        sound, faults = sound_items(value, handler, Backend)
        port = 0 if info.data.get("port_to") else info.data.get("port", 0)
        sound = {at: backend.filled(port) for at, backend in sound.items()}
        faults += of_list(sound, len(value))
        faults += of_backends(sound, *map(info.data.get, ("vip", "quic", "health")))
        return tuple_of(sound, faults)

    @model_serializer(mode="wrap")
    def _as_written(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the backends of a pool, so that the result can be read again."""
        plain: dict[str, Any] = written(self)
        return plain if self.pool is None else {name: value for name, value in plain.items() if name != "backends"}

    @field_validator("health")
    @classmethod
    def _fits_the_service(cls, value: Health | None, info: ValidationInfo) -> Health | None:
        """Check that a probe through the tunnel uses the service's protocol and one of its ports."""
        if value is None or value.through == "direct" or "port" not in info.data:
            return value
        protocol, port = info.data.get("protocol"), info.data["port"]
        if PROBE_PROTOCOLS[value.kind] != protocol:
            values = {"kind": value.kind, "protocol": str(protocol)}
            raise PydanticCustomError("kind", "`kind: {kind}` cannot go through a {protocol} service's tunnel", values)
        if port == 0 and value.port is None:
            raise PydanticCustomError("port", "`port` is missing: the service has `port: any`")
        if port and value.port and value.port not in range(port, (info.data.get("port_to") or port) + 1):
            raise PydanticCustomError("port", "`port` should be a port of the service to go through its tunnel")
        return value

    @field_validator("port_to")
    @classmethod
    def _above_first_port(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value <= info.data.get("port", 0):
            raise PydanticCustomError("port_to", "should be above `port`")
        if value is not None and info.data.get("port") == 0:
            raise PydanticCustomError("port_to", "does not apply to `port: any`")
        return value

    @property
    def tracking(self) -> FlowTracking:
        """``flows`` as it is in force: where connection ids name backends, a slot does not say where its flows are."""
        return "all" if self.quic is not None and self.flows == "changed" else self.flows

    @property
    def idle_s(self) -> int:
        """Idle timeout of an established flow, in seconds."""
        return self.idle.tcp_s if self.protocol == "tcp" else self.idle.udp_s

    def with_idle(self, idle: Idle) -> "Service":
        return self if idle == self.idle else self.model_copy(update={"idle": idle})

    @property
    def port_text(self) -> str:
        """The port for people: one number, FIRST-LAST, or any."""
        return f"{self.port}-{self.port_to}" if self.port_to else str(self.port or "any")

    @property
    def backend_port(self) -> int:
        """The port of backends that have none of their own; 0: the port that the packet has."""
        return 0 if self.port_to else self.port

    @property
    def ports(self) -> range:
        """All ports of the service; the single port 0 means any."""
        return range(self.port, (self.port_to or self.port) + 1)


class Config(Model):
    """The configuration that all muxes and host agents share."""

    muxes: Annotated[tuple[Routed, ...], Field(max_length=1024)] = ()
    """Outer source addresses that host agents accept."""
    maglev: Maglev = Maglev()
    """The table that spreads new flows over backends."""
    flows: FlowLimits = FlowLimits()
    """Limits of the flow table."""
    idle: Idle = Idle()
    """Idle timeouts of all services that do not set their own."""
    tunnel: Tunnel = Tunnel()
    """Encapsulation of packets from muxes to hosts."""
    slowpath: SlowPath = SlowPath()
    """Handling of pings, ICMP errors, fragments, and packets that exceed the path MTU to the host."""
    capacity_pps: Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)] | None = None
    """Packets per second that one mux is known to forward. A mux that gets more says that it is overloaded, and admits
    no more than this, each VIP its fair share (`share`). It also notices frames that are dropped before they reach it,
    a late packet loop, and CPUs that do nothing but receive."""
    black_hole: BlackHole = BlackHole()
    """What a mux does with a VIP that is flooded, if `capacity_pps` is stated."""
    pools: dict[Name, Pool] = Field(default_factory=dict)
    """Lists of backends by name, for services that share their backends (`pool`). An override of a backend acts in all
    services of its pool."""
    services: Annotated[tuple[Service, ...], Field(max_length=MAX_SERVICES)]
    """The services."""

    @field_validator("services", mode="wrap")
    @classmethod
    def _consistent(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> tuple[Service, ...]:
        sound, faults = sound_items(value, handler, Service)
        if "pools" in info.data:
            sound, of_pools = with_pools(sound, info.data["pools"])
            faults += of_pools
        faults += repeated(sound, lambda service: service.name, "name", "another service has the name {}")
        faults += repeated(
            sound,
            lambda service: f"{service.vip} {service.protocol} {service.port}",
            None,
            "another service has {}: VIP, protocol and port together should be unique",
        )
        maglev = info.data.get("maglev", Maglev())
        sound = {at: _sized(service, maglev) for at, service in sound.items()}
        hint = "use a prime over 100 times the number of backends"
        faults += [
            ((at, "backends"), f"{len(service.backends)} backends do not fit maglev.size {size}: {hint}")
            for at, service in sound.items()
            if len(service.backends) >= (size := service.maglev_size or maglev.size)
        ]
        faults += overlapping_ports(sound)
        faults += find_loops(info.data.get("muxes", ()), sound)
        if sum(len(service.ports) for service in sound.values()) > MAX_PORTS:
            faults.append(((), f"more than {MAX_PORTS} ports in all services: use `port: any`"))
        if sum(len(service.allow) + len(service.deny) for service in sound.values()) > MAX_PREFIXES:
            faults.append(((), f"more than {MAX_PREFIXES} prefixes in all access lists"))
        faults += [
            ((), why) for why in over_limits(len(value), sum(len(service.backends) for service in sound.values()))
        ]
        services = tuple_of(sound, at_pools(faults, sound))
        defaults = info.data.get("idle", Idle())
        return tuple(one.with_idle(one.idle.filled(defaults)) for one in services)


def _sized(service: Service, maglev: Maglev) -> Service:
    """Return the service with the size of its table, if that depends on its backends.

    Backends that are down or disabled, or were added by command, must not change the size: it would move all flows.
    """
    if maglev.size or service.maglev_size:
        return service
    return service.model_copy(update={"maglev_size": size_for(len(service.backends))})


def over_limits(services: int, backends: int) -> Iterator[str]:
    """Yield a message for each limit of one file that the numbers of services and backends exceed."""
    if services > MAX_SERVICES:
        yield f"{services} services: the limit is {MAX_SERVICES}"
    if backends > MAX_BACKENDS:
        yield f"{backends} backends in all: the limit is {MAX_BACKENDS}"


def kind_of(config: Config, service: Service, backend: Backend) -> TunnelKind:
    """Return the encapsulation of packets to a backend."""
    return backend.tunnel or service.tunnel or config.tunnel.kind


def slots_of(config: Config, service: Service) -> int:
    """Return the size of a service's Maglev table."""
    return service.maglev_size or config.maglev.size
