"""What a mux does with a flooded VIP while it is over its capacity (docs/overload.md)."""

from typing import Annotated, Literal

from pydantic import Field

from lbmux.config.field_types import Model

Upstream = Literal["none", "withdraw", "blackhole"]


class BlackHole(Model):
    """What a mux with a stated `capacity_pps` does with a flooded VIP: it drops all packets of the VIP first."""

    enabled: bool = True
    """Whether a VIP may become a black hole. The last VIP of a mux never does, nor one that many real clients use."""
    after_s: Annotated[float, Field(ge=0.2, le=60)] = 1.0
    """The mux has to get more than `capacity_pps` on average over this time, in seconds."""
    first_s: Annotated[float, Field(ge=1, le=86400)] = 10.0
    """After this many seconds the VIP gets its fair share again; each relapse doubles that. It comes back earlier if
    the flood ends."""
    longest_s: Annotated[float, Field(ge=1, le=86400)] = 600.0
    """The longest black hole, in seconds."""
    upstream: Upstream = "none"
    """What routers are asked to do if the mux still loses packets two seconds after a VIP became a black hole. `none`:
    nothing. `withdraw`: the VIP's route is withdrawn. `blackhole`: the route gets the community BLACKHOLE, 65535:666
    (RFC 7999). With a manager all muxes do so at once. It ends when the black hole's time is over."""
