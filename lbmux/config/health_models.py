"""How a service's backends are probed, as a part of the configuration (lbmux.control.health does it)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from lbmux.config.field_types import Model, Port, Share

ProbeKind = Literal["tcp", "tls", "http", "https", "dns", "udp", "icmp", "command"]
PROBE_PROTOCOLS: Mapping[ProbeKind, str] = {
    "tcp": "tcp", "tls": "tcp", "http": "tcp", "https": "tcp", "dns": "udp", "udp": "udp",
}  # fmt: skip
"""The transport protocols of those kinds that can take a service's own way."""
Count = Annotated[int, Field(strict=True, ge=1, le=100)]
Text = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[\x20-\x7e]+$")]


class Health(Model):
    """Probes of a service's backends: those that fail get no flows until they answer again."""

    by: Literal["mux", "agent"] = "mux"
    """Who probes: each mux by itself, or the host's agent, which tells the muxes."""
    agent_port: Port = 6082
    """The TCP port at which agents tell muxes, where they probe."""
    through: Literal["direct", "tunnel"] = "direct"
    """A mux's probes: straight to the backend, or to the VIP and encapsulated as traffic is, so that the way to the
    host, its agent and the replies' way back are tested too."""
    kind: ProbeKind = "tcp"
    """What is tried: a connection, a TLS handshake, a GET, a DNS query, a datagram, a ping, or a command."""
    port: Port | None = None
    """The port that is probed. Default: the backend's; through the tunnel, the service's."""
    interval_s: Annotated[float, Field(ge=0.05, le=3600)] = 1.0
    """From the beginning of one probe to that of the next, in seconds."""
    timeout_s: Annotated[float, Field(ge=0.01, le=60)] = 0.5
    """A probe that took as long has failed, in seconds; not more than `interval_s`."""
    rise: Count = 2
    """So many successes in a row, and a backend that was down is up."""
    fall: Count = 3
    """So many failures in a row, and a backend that was up is down."""
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the interval by which each probe comes earlier or later, so that they don't come all at once."""
    watermark: Share | None = None
    """Where fewer than this share of the service's backends seem healthy, all are kept: the fault is the prober's."""
    path: Annotated[Text, Field(pattern=r"^/[\x21-\x7e]*$")] = "/"
    """What http and https get."""
    host: Text | None = None
    """The Host of http and https, and the server name of tls and https. Default: the backend's address."""
    status: Annotated[int, Field(strict=True, ge=100, le=599)] = 200
    """The status that http and https are to answer."""
    body: Text | None = None
    """What the body of the answer to http and https is to contain, in its first 64 KiB."""
    verify: bool = False
    """Whether tls and https are to show a certificate that this machine trusts, for `host`."""
    query: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{0,63}\.?$", max_length=253)] = "."
    """The name that dns asks for (its NS at the root, else its A record); any answer without an error is right."""
    send: Text = "lbmux"
    """The datagram of udp."""
    expect: Text | None = None
    """What the answer of udp is to contain. Default: any answer."""
    command: tuple[Text, ...] = Field(default=(), validate_default=True)
    """The program and its arguments; {dip} and {port} stand for the backend's. It is to end with 0."""

    @field_validator("timeout_s")
    @classmethod
    def _within_the_interval(cls, value: float, info: ValidationInfo) -> float:
        interval_s = info.data.get("interval_s", value)
        if value > interval_s:
            raise PydanticCustomError("timeout", "should be at most `interval_s`")
        return value

    @field_validator("command")
    @classmethod
    def _with_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        if bool(value) != (info.data.get("kind", "command" if value else "tcp") == "command"):
            raise PydanticCustomError("command", "is what `kind: command` runs: both or neither")
        return value

    @field_validator("kind")
    @classmethod
    def _able_to(cls, value: ProbeKind, info: ValidationInfo) -> ProbeKind:
        if info.data.get("through") == "tunnel" and value not in PROBE_PROTOCOLS:
            raise PydanticCustomError("kind", "does not go through the tunnel: " + ", ".join(PROBE_PROTOCOLS) + " do")
        return value

    @field_validator("through")
    @classmethod
    def _by_the_mux(cls, value: str, info: ValidationInfo) -> str:
        if value == "tunnel" and info.data.get("by") == "agent":
            raise PydanticCustomError("through", "has no meaning beside `by: agent`: an agent probes its own host")
        return value
