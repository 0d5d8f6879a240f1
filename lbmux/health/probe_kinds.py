"""Maps the names of probe kinds in the configuration to their coroutines."""

from collections.abc import Mapping

from lbmux.config.health_models import ProbeKind
from lbmux.health import datagram_probes, stream_probes
from lbmux.health.command_probe import command
from lbmux.health.probe import Kind

KINDS: Mapping[ProbeKind, Kind] = {
    "tcp": stream_probes.tcp,
    "tls": stream_probes.tls,
    "http": stream_probes.http,
    "https": stream_probes.http,
    "dns": datagram_probes.dns,
    "udp": datagram_probes.udp,
    "icmp": datagram_probes.icmp,
    "command": command,
}
