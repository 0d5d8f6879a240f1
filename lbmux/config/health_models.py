"""Configuration of health checks; `lbmux.health` runs the probes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from lbmux.config.field_types import Model, Port, Share

ProbeKind = Literal["tcp", "tls", "http", "https", "dns", "udp", "icmp", "command"]
PROBE_PROTOCOLS: Mapping[ProbeKind, str] = {
    "tcp": "tcp", "tls": "tcp", "http": "tcp", "https": "tcp", "dns": "udp", "udp": "udp",
}  # fmt: skip
"""The transport protocol of each probe kind that can go through the tunnel."""
Count = Annotated[int, Field(strict=True, ge=1, le=100)]
Text = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[\x20-\x7e]+$")]


class Watermark(Model):
    """Shares of healthy backends between which the mux does not change its mind."""

    low: Share
    """If a smaller share of the service's backends seems healthy, all are kept."""
    high: Share
    """From this share on, backends that are down are taken out again; at least `low`."""

    @field_validator("high")
    @classmethod
    def _not_below_low(cls, value: float, info: ValidationInfo) -> float:
        if value < info.data.get("low", value):
            raise PydanticCustomError("high", "should be at least `low`")
        return value


def _both(value: object) -> object:
    """Let a single number stand for both shares."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not 0 < value <= 1:
        raise PydanticCustomError("watermark", "should be above 0 and at most 1")
    return {"low": float(value), "high": float(value)}


class Health(Model):
    """Health checks of a service's backends. A backend that fails gets no flows until it passes again."""

    by: Literal["mux", "agent"] = "mux"
    """`mux`: each mux probes the backends. `agent`: the agent on the backend's host probes and reports to the muxes."""
    agent_port: Port = 6082
    """TCP port on which agents report health to muxes (`by: agent`)."""
    through: Literal["direct", "tunnel"] = "direct"
    """`direct`: a mux probes the backend's own address. `tunnel`: it probes the VIP and encapsulates the probe like
    traffic, which also tests the path to the host, its agent and the return path."""
    kind: ProbeKind = "tcp"
    """The probe: a TCP connection, a TLS handshake, an HTTP GET, a DNS query, a UDP datagram, a ping or a command."""
    port: Port | None = None
    """Port to probe. Default: the backend's; with `through: tunnel` the service's."""
    interval_s: Annotated[float, Field(ge=0.05, le=3600)] = 1.0
    """Seconds from the start of one probe to the start of the next."""
    timeout_s: Annotated[float, Field(ge=0.01, le=60)] = 0.5
    """A probe fails after this many seconds without success; at most `interval_s`."""
    rise: Count = 2
    """Consecutive successes before a backend that is down is up."""
    fall: Count = 3
    """Consecutive failures before a backend that is up is down."""
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the interval by which each probe is moved at random, so that probes spread out."""
    watermark: Annotated[Watermark, BeforeValidator(_both, json_schema_input_type=Share | Watermark)] | None = None
    """If fewer than this share of the service's backends seem healthy, all are kept: the prober is probably at
    fault. With `{low: 0.3, high: 0.6}` they are kept from below 0.3 until 0.6 are healthy."""
    path: Annotated[Text, Field(pattern=r"^/[\x21-\x7e]*$")] = "/"
    """Path that http and https request."""
    host: Text | None = None
    """Host header of http and https, and server name (SNI) of tls and https. Default: the backend's address."""
    status: Annotated[int, Field(strict=True, ge=100, le=599)] = 200
    """Status that http and https expect."""
    body: Text | None = None
    """Text that http and https expect in the first 64 KiB of the response body."""
    verify: bool = False
    """Whether tls and https require a certificate for `host` that this machine trusts."""
    query: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{0,63}\.?$", max_length=253)] = "."
    """Name that dns asks for: NS records of the root, A records of any other name. Any answer without an error
    passes."""
    send: Text = "lbmux"
    """Datagram that udp sends."""
    expect: Text | None = None
    """Text that udp expects in the answer. Default: any answer passes."""
    command: tuple[Text, ...] = Field(default=(), validate_default=True)
    """Program and arguments that `kind: command` runs; {dip} and {port} are replaced by the backend's. Exit code 0
    passes. The command has no capabilities and a bare environment."""

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
            raise PydanticCustomError("command", "needs `kind: command`, and `kind: command` needs `command`")
        return value

    @field_validator("kind")
    @classmethod
    def _able_to(cls, value: ProbeKind, info: ValidationInfo) -> ProbeKind:
        if info.data.get("through") == "tunnel" and value not in PROBE_PROTOCOLS:
            raise PydanticCustomError("kind", "cannot go through the tunnel; use one of " + ", ".join(PROBE_PROTOCOLS))
        return value

    @field_validator("through")
    @classmethod
    def _by_the_mux(cls, value: str, info: ValidationInfo) -> str:
        if value == "tunnel" and info.data.get("by") == "agent":
            raise PydanticCustomError("through", "does not apply to `by: agent`: an agent probes its own host directly")
        return value
