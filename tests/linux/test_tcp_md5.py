"""Why the kernel drops segments of a BGP peer: by real connections, and by counters that a test writes."""

import socket
import struct
import time
from pathlib import Path

import pytest

from lbmux.linux.tcp_md5 import MEANINGS, RECENT_S, PasswordCheck, read

TCP_MD5SIG, LOCAL = 14, "127.0.0.1"
HAS_MD5 = pytest.mark.skipif(not read(), reason="a kernel without TCP MD5 (CONFIG_TCP_MD5SIG)")


def with_password(sock: socket.socket, password: bytes) -> None:
    """Set it for segments from and to LOCAL (struct tcp_md5sig)."""
    peer = struct.pack("=HH4s120x", socket.AF_INET, 0, socket.inet_aton(LOCAL))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, peer + struct.pack("=BBHI80s", 0, 0, len(password), 0, password))


@HAS_MD5
@pytest.mark.parametrize(
    ("ours", "peers", "why"),
    [(b"secret", b"", "TCPMD5NotFound"), (b"", b"secret", "TCPMD5Unexpected"), (b"secret", b"other", "TCPMD5Failure")],
)
def test_a_peer_with_another_password_is_the_reason(ours: bytes, peers: bytes, why: str) -> None:
    check, now = PasswordCheck(), time.monotonic()
    assert check.reason(now) == ""
    with socket.socket() as listener, socket.socket() as peer:
        listener.bind((LOCAL, 0))
        for sock, password in ((listener, ours), (peer, peers)):
            if password:
                with_password(sock, password)
        listener.listen()
        peer.settimeout(0.1)
        with pytest.raises(TimeoutError):
            peer.connect(listener.getsockname())
    assert check.reason(now) == MEANINGS[why]


def counters(path: Path, **values: int) -> None:
    names = ["SyncookiesSent", *MEANINGS]
    lines = [" ".join(["TcpExt:", *names]), " ".join(["TcpExt:", *(str(values.get(name, 0)) for name in names)])]
    path.write_text("\n".join([*lines, "IpExt: InNoRoutes", "IpExt: 0", ""]))


def test_the_latest_reason_counts_and_not_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "netstat"
    counters(path, TCPMD5Failure=7)
    check = PasswordCheck(path)
    assert check.reason(0.0) == "", "what was counted before is not ours"
    counters(path, TCPMD5Failure=8)
    assert check.reason(1.0) == MEANINGS["TCPMD5Failure"]
    counters(path, TCPMD5Failure=8, TCPMD5NotFound=1)
    assert check.reason(2.0) == check.reason(RECENT_S) == MEANINGS["TCPMD5NotFound"]
    assert check.reason(2.0 + RECENT_S) == ""


def test_a_kernel_without_the_counters_gives_no_reason(tmp_path: Path) -> None:
    path = tmp_path / "netstat"
    assert read(path) == {}, "nor has one that does not show its file"
    path.write_text("TcpExt: SyncookiesSent\nTcpExt: 3\n")
    assert read(path) == {} and PasswordCheck(path).reason(0.0) == ""
    path.write_text("")
    assert PasswordCheck(path).reason(0.0) == ""
