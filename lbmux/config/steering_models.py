"""Configuration of steering: the PoPs, and where client groups and their latencies are; `lbmux.steering` computes."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from lbmux.config.field_types import Model, Name, Port, Seconds, Unicast
from lbmux.config.health_models import Health

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=256)]
DnsName = Annotated[str, Field(max_length=253, pattern=r"^([A-Za-z0-9_-]{1,63}\.)+[A-Za-z0-9_-]{1,63}\.?$")]


class SteeringHealth(Health):
    """Health checks of PoPs."""

    port: Port = 443
    """Port to probe."""


class Announcement(Model):
    """How muxes announce their VIPs by BGP."""

    prepend: Annotated[int, Field(ge=0, le=10)] = 0
    """How often they prepend their own AS: routers prefer shorter paths."""
    length: Annotated[int, Field(ge=8, le=32)] = 32
    """Length of the prefix around each IPv4 VIP: users go to the site with the longest one."""
    length6: Annotated[int, Field(ge=16, le=128)] = 128
    """Length of the prefix around each IPv6 VIP."""


class Bgp(Model):
    """Announcements of PoPs that have users; the others withdraw."""

    normal: Announcement = Announcement()
    """Below 90 % of its capacity."""
    full: Announcement = Announcement(prepend=3)
    """From 90 % of its capacity on, until it is below 70 %."""


class Pop(Model):
    """A point of presence: a site that takes users."""

    name: Name
    """Name, unique in the file."""
    addresses: Annotated[tuple[Unicast, ...], Field(min_length=1)]
    """The addresses in DNS answers, of both families."""
    capacity: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Maximum load, in any unit that all PoPs share; without `load`, in users."""
    load: Amount | None = None
    """Its present load. The sum of all loads gives the load of one user. Set it for all PoPs or for none."""
    healthy: bool = True
    """Whether it takes users. Set it to false to drain the PoP: it keeps those that still come."""
    proxies: tuple[Text, ...] = ()
    """The runtime APIs of its HAProxies, whose weights `lbmux steer run` sets: paths of sockets, relative to this file,
    or HOST:PORT."""
    agents: tuple[Text, ...] = ()
    """Its agents, whose round-trip times `lbmux steer run` collects: control sockets, relative to this file, or, with a
    manager, names of nodes with * and ? as wildcards."""
    muxes: tuple[Text, ...] = ()
    """Its muxes, which `lbmux steer run` has follow the map by BGP: as for `agents`."""
    rtt_ms: Mapping[Name, Amount] = {}
    """Round-trip times to data centres. `lbmux steer run` takes those of its proxies' health checks instead."""
    unreachable: tuple[Name, ...] = ()
    """Data centres that it cannot reach; for `lbmux steer run`, also those that are down at all its proxies."""


class DataCentre(Model):
    """A data centre, to which the proxies of all PoPs send requests."""

    name: Name
    """Name, unique in the file; also that of the server in HAProxy's backend."""
    capacity: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Maximum load, in the unit of the PoPs. Near data centres share a PoP's requests by capacity."""
    healthy: bool = True
    """Whether it works. If not, it gets no more requests at once."""
    draining: bool = False
    """Whether its requests move to the others, at most 10 % of all requests a second."""


class Steering(Model):
    """The configuration of `lbmux steer`."""

    name: DnsName
    """The name that clients look up."""
    ttl_s: Seconds = 30
    """Time to live of answers."""
    move_cost_ms: Amount = 20.0
    """Cost of moving a user to another PoP, as a round-trip time: a user moves only for a larger gain."""
    explore: Annotated[float, Field(ge=0, le=0.05)] = 0.0
    """Share of each group's new sessions, such as 0.01, that go to its second-best PoP, so that its latency there stays
    known; by DNS only, and never to a PoP over 90 % of its capacity."""
    max_age_s: Seconds = 86400
    """Maximum age of samples; older ones are ignored."""
    groups: str
    """CSV file with the columns prefix, users and resolver (which may be empty), relative to this file."""
    latency: str
    """CSV file with the columns prefix, pop, rtt_ms, low_ms, high_ms, samples and time (seconds since 1970)."""
    pops: Annotated[tuple[Pop, ...], Field(min_length=1, max_length=1000)]
    """The PoPs."""
    default: Name
    """The PoP of clients of unknown prefixes."""
    health: SteeringHealth | None = None
    """How `lbmux steer run` probes the first address of each PoP."""
    data_centres: tuple[DataCentre, ...] = ()
    """The data centres, which share the requests of each PoP."""
    collect_s: Seconds = 60
    """How often `lbmux steer run` collects the round-trip times of agents."""
    bgp: Bgp = Bgp()
    """How the muxes of PoPs announce their VIPs, by the map."""
    near_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    """Data centres count as equally near to a PoP if their round-trip times differ by less than this; farther ones get
    what nearer ones have no capacity for."""
    proxy_backend: Name = "upstream"
    """The backend of the PoPs' HAProxies that has the data centres as servers."""

    @field_validator("pops")
    @classmethod
    def _consistent(cls, pops: tuple[Pop, ...]) -> tuple[Pop, ...]:
        if len({pop.name for pop in pops}) < len(pops):
            raise PydanticCustomError("pops", "two PoPs have the same name")
        if len({pop.load is None for pop in pops}) > 1:
            raise PydanticCustomError("pops", "should have `load` for all PoPs or for none")
        return pops

    @field_validator("data_centres")
    @classmethod
    def _different(cls, centres: tuple[DataCentre, ...]) -> tuple[DataCentre, ...]:
        if len({centre.name for centre in centres}) < len(centres):
            raise PydanticCustomError("data_centres", "two data centres have the same name")
        return centres

    @field_validator("default")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if name not in [pop.name for pop in info.data.get("pops", ())]:
            raise PydanticCustomError("default", "is not the name of a PoP")
        return name
