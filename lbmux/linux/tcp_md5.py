"""The kernel's counters of TCP segments that it drops because of their MD5 signature (RFC 2385), as BGP uses it.

The kernel drops them without an answer, so neither a BGP speaker nor its peer learns why a session does not come up.
The counters are those of the whole network namespace.
"""

from pathlib import Path

NETSTAT = Path("/proc/self/net/netstat")
MEANINGS = {
    "TCPMD5NotFound": "the peer sends no TCP MD5 password, but this node has one",
    "TCPMD5Unexpected": "the peer sends a TCP MD5 password, but this node has none",
    "TCPMD5Failure": "the peer has another TCP MD5 password",
}
RECENT_S = 180.0
"""Longer than the pause between two attempts of a speaker to connect (120 s: RFC 4271, section 10)."""


def read(path: Path = NETSTAT) -> dict[str, int]:
    """Return the counters of MEANINGS by name; none without TCP MD5 in the kernel or the right to read them."""
    try:
        lines = [line.split() for line in path.read_text().splitlines() if line.startswith("TcpExt:")]
    except OSError:
        return {}
    names, values = lines or [[], []]
    return {name: int(value) for name, value in zip(names, values, strict=True) if name in MEANINGS}


class PasswordCheck:
    """Finds out why segments of peers were dropped recently. ``now`` is a monotonic time in seconds."""

    def __init__(self, path: Path = NETSTAT) -> None:
        self._path = path
        self._counters = read(path)
        self._grew_s: dict[str, float] = {}

    def reason(self, now: float) -> str:
        """Return the meaning of the counter that grew last within RECENT_S, or an empty string."""
        before, self._counters = self._counters, read(self._path)
        grown = [name for name, value in self._counters.items() if value > before.get(name, 0)]
        self._grew_s |= dict.fromkeys(grown, now)
        recent = {name: at for name, at in self._grew_s.items() if now - at < RECENT_S}
        return MEANINGS[max(recent, key=recent.__getitem__)] if recent else ""
