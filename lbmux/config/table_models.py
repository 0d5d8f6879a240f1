"""Models of a mux's tables: the Maglev table, the size of the flow table, and idle timeouts."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from lbmux.config.field_types import Model, Seconds, Share

MAX_SLOTS = 2_000_003
SIZES = (1021, 2039, 4093, 8191, 16381, 32749, 65537, 131_071, 262_139, 524_287, 1_048_573, MAX_SLOTS)
"""The sizes of tables with `auto`: primes, each about twice the one before."""
SLOTS_A_BACKEND = 100
"""Slots that a table needs for each backend so that new flows spread evenly (Maglev paper, section 3.4)."""


def size_for(backends: int) -> int:
    """Return the size of a table with `auto`: the first of SIZES that has SLOTS_A_BACKEND for each backend."""
    return next((size for size in SIZES if size >= SLOTS_A_BACKEND * backends), MAX_SLOTS)


def _auto(value: object) -> object:
    if value == "auto":
        return 0
    if isinstance(value, int) and value <= 2:
        raise PydanticCustomError("size", "should be greater than 2, or `auto`")
    return value


def _prime(size: int) -> int:
    if any(size % divisor == 0 for divisor in range(2, int(size**0.5) + 1)):
        raise PydanticCustomError("prime", "should be a prime number, such as 65537")
    return size


def _written_size(size: int) -> int | str:
    return size or "auto"


Slots = Annotated[int, Field(strict=True, gt=2, le=MAX_SLOTS), AfterValidator(_prime)]
SlotsOrAuto = Annotated[
    int, Field(strict=True, ge=0, le=MAX_SLOTS), BeforeValidator(_auto), AfterValidator(_prime),
    PlainSerializer(_written_size, when_used="json"),
]  # fmt: skip


class Maglev(Model):
    """The Maglev table, which spreads new flows over backends (Maglev paper, section 3.4)."""

    size: SlotsOrAuto = 65537
    """Slots per service: a prime number, ideally over 100 times the backends of the largest service; or `auto`: for
    each service the first of 1021, 2039, 4093, and so on, that has 100 slots for each backend in the file."""
    seed: Annotated[int, Field(strict=True, ge=0, le=0xFFFFFFFF)] = 1
    """Seed of the hash that picks a slot; the same on all muxes."""


class FlowLimits(Model):
    """The size of the flow table, and the share of it that each class of flows may fill."""

    limit: Annotated[int, Field(strict=True, ge=1024, le=16_777_216)] = 1_048_576
    """Maximum number of flows that a mux remembers; the memory is allocated at the start."""
    trusted_share: Share = 0.75
    """Share of the table for flows with two or more packets."""
    untrusted_share: Share = 1.0
    """Share of the table for flows with one packet, such as those of a SYN flood; they never displace trusted
    flows."""


class Idle(Model):
    """Idle timeouts: how long a flow is remembered after its last packet."""

    untrusted_s: Seconds = 10
    """Idle timeout of a flow with only one packet so far, in seconds."""
    tcp_s: Seconds = 900
    """Idle timeout of a TCP connection, in seconds."""
    fin_s: Seconds = 120
    """Idle timeout of a TCP connection after a FIN or RST from its client, in seconds."""
    udp_s: Seconds = 300
    """Idle timeout of a UDP flow with two or more packets, in seconds."""

    def filled(self, defaults: "Idle") -> "Idle":
        """Return these timeouts, with those of ``defaults`` where none is set."""
        own = self.model_dump(exclude_unset=True)
        return defaults.model_copy(update=own) if own else defaults
