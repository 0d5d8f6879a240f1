"""The configuration that every mux and agent shares, as frozen models.

Nothing of one machine is in it (interface, own address, driver): those are options of the commands. A reload
makes a new `Config` and compares; nobody changes one. `config_file` reads it from YAML; the table writer
makes tables of it. What a reader leaves out (names, ports, idle times) is filled in here.

Checks that span several items (unique names, say) name the item at fault, and look at the sound items of a
list even where it has broken ones, so that all that is wrong is said at once.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from lbmux.addresses import Address

MAX_SERVICES = 1024
MAX_BACKENDS = 16384
MAX_SLOTS = 2_000_003

Item = TypeVar("Item")
Fault = tuple[tuple[int | str, ...], str]
"""Where below the field, and what is wrong there."""


SAID = {"extra_forbidden": "is no known field", "missing": "is missing", "model_type": "should be a mapping"}


def said(error: ErrorDetails) -> str:
    """What pydantic says of a value, in this file's words."""
    return SAID.get(error["type"]) or error["msg"].removeprefix("Input ")


def _unicast(value: object) -> IPv4Address:
    """One machine's address; an integer is none, though `ipaddress` would take it."""
    if not isinstance(value, str | IPv4Address | IPv6Address):
        raise PydanticCustomError("address", "should be an IP address as text")
    try:
        address = ip_address(value)
    except ValueError:
        raise PydanticCustomError("address", "is not an IPv4 or IPv6 address") from None
    if address.is_multicast:
        raise PydanticCustomError("address", "is a multicast address: a unicast one is needed")
    if address.is_unspecified or (address.version == 4 and (address.is_reserved or address.packed[0] == 0)):
        raise PydanticCustomError("address", "is not a unicast address")
    if address.version == 6:
        raise PydanticCustomError("address", "is an IPv6 address, which is not forwarded yet: IPv4 is")
    return address


Unicast = Annotated[IPv4Address, BeforeValidator(_unicast)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Seconds = Annotated[int, Field(strict=True, ge=1, le=86400)]
Share = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\s\x00-\x1f\x7f]+$")]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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
    trusted_s: Seconds = 300
    """Idle time of a flow that was seen twice or more, in seconds."""
    closing_s: Seconds = 10
    """Idle time of a TCP flow after its FIN or RST, in seconds."""


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

    @property
    def tunnel_to(self) -> Address:
        """Destination of the outer header."""
        return self.host or self.dip

    def _filled(self, port: int) -> "Backend":
        port = self.port or port
        return self.model_copy(update={"port": port, "name": self.name or f"{self.dip}:{port}"})


class Service(Model):
    """What clients see: a VIP, a protocol and a port, and the backends that serve it."""

    name: Name
    """Name, unique in the file."""
    vip: Unicast
    """The address that clients connect to."""
    protocol: Literal["tcp", "udp"]
    """Transport protocol."""
    port: Port
    """The port that clients connect to."""
    idle: Idle = Idle()
    """Idle times that differ from the defaults of the file."""
    backends: tuple[Backend, ...]
    """The servers; with none, packets of the service are dropped and counted."""

    @field_validator("backends", mode="wrap")
    @classmethod
    def _consistent(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> tuple[Backend, ...]:
        sound, faults = _sound_items(value, handler)
        port = info.data.get("port", 0)
        sound = {at: backend._filled(port) for at, backend in sound.items()}
        faults += _repeated(sound, lambda backend: backend.name, "name", "another backend has the name {}")
        faults += _repeated(
            sound,
            lambda backend: backend.tunnel_to,
            None,
            "two backends of one service behind one host address ({}) cannot be told apart: leave `host` out",
        )
        if sound and len(sound) == len(value) and not any(backend.weight for backend in sound.values()):
            faults.append(((), "at least one backend should have a weight above 0"))
        return _tuple_of(sound, faults)


class Config(Model):
    """Configuration of lbmux, shared by every mux and host agent."""

    muxes: Annotated[tuple[Unicast, ...], Field(max_length=1024)] = ()
    """Outer source addresses that host agents accept."""
    maglev: Maglev = Maglev()
    """The table that spreads new flows."""
    flows: FlowLimits = FlowLimits()
    """Limits of the flow table."""
    idle: Idle = Idle()
    """Idle times of all services that do not set their own."""
    services: Annotated[tuple[Service, ...], Field(max_length=MAX_SERVICES)]
    """What is balanced."""

    @field_validator("services", mode="wrap")
    @classmethod
    def _consistent(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> tuple[Service, ...]:
        sound, faults = _sound_items(value, handler)
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
        if len(value) > MAX_SERVICES:
            faults.append(((), f"{len(value)} services: {MAX_SERVICES} are the most"))
        total = sum(len(service.backends) for service in sound.values())
        if total > MAX_BACKENDS:
            faults.append(((), f"{total} backends in all: {MAX_BACKENDS} are the most"))
        services = _tuple_of(sound, faults)
        defaults = info.data.get("idle", Idle())
        return tuple(
            service.model_copy(
                update={"idle": defaults.model_copy(update=service.idle.model_dump(exclude_unset=True))}
            )
            for service in services
        )


def _sound_items(value: Any, handler: ValidatorFunctionWrapHandler) -> tuple[dict[int, Any], list[Fault]]:
    """The items of a list that are right by themselves, by place, and what is wrong with the others."""
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("list", "should be a list")
    sound: dict[int, Any] = {}
    faults: list[Fault] = []
    for at, item in enumerate(value):
        try:
            (sound[at],) = handler([item])
        except ValidationError as error:
            faults += [((at, *one["loc"][1:]), said(one)) for one in error.errors(include_url=False)]
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
