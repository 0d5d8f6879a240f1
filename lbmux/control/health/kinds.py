"""The kinds of probes, by the name that they have in the configuration."""

from collections.abc import Mapping

from lbmux.config.health_models import ProbeKind
from lbmux.control.health import datagrams, streams
from lbmux.control.health.command import command
from lbmux.control.health.probe import Kind

KINDS: Mapping[ProbeKind, Kind] = {
    "tcp": streams.tcp,
    "tls": streams.tls,
    "http": streams.http,
    "https": streams.http,
    "dns": datagrams.dns,
    "udp": datagrams.udp,
    "icmp": datagrams.icmp,
    "command": command,
}
