"""Configuration of steering: the PoPs, and where client groups and their latencies are; `lbmux.steering` computes."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from lbmux.config.field_types import Model, Name, Seconds, Unicast

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
DnsName = Annotated[str, Field(max_length=253, pattern=r"^([A-Za-z0-9_-]{1,63}\.)+[A-Za-z0-9_-]{1,63}\.?$")]


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
    """Whether it takes users."""


class Steering(Model):
    """The configuration of `lbmux steer`."""

    name: DnsName
    """The name that clients look up."""
    ttl_s: Seconds = 30
    """Time to live of answers."""
    move_cost_ms: Amount = 20.0
    """Cost of moving a user to another PoP, as a round-trip time: a user moves only for a larger gain."""
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

    @field_validator("pops")
    @classmethod
    def _consistent(cls, pops: tuple[Pop, ...]) -> tuple[Pop, ...]:
        if len({pop.name for pop in pops}) < len(pops):
            raise PydanticCustomError("pops", "two PoPs have the same name")
        if len({pop.load is None for pop in pops}) > 1:
            raise PydanticCustomError("pops", "should have `load` for all PoPs or for none")
        return pops

    @field_validator("default")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo) -> str:
        if name not in [pop.name for pop in info.data.get("pops", ())]:
            raise PydanticCustomError("default", "is not the name of a PoP")
        return name
