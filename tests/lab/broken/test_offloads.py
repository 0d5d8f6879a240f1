"""Merged frames and unfinished checksums."""

import contextlib
import socket

import pytest

from lbmux.lab.topology import VIP
from tests.lab.broken.broken import Broken

pytestmark = pytest.mark.root


def test_joined_frames_where_a_program_in_the_kernel_forwards(kernel: Broken) -> None:
    with kernel.offload("mux1", "eth0", gro=True):
        assert kernel.doctor("mux1").says("offloads", "gro on at eth0", "warning")


def test_checksums_that_a_card_should_finish(pool: Broken) -> None:
    with pool.offload("router", "to-mux1", tx=True):
        assert pool.doctor("router").says("checksums", "tx offload is on at the veth to-mux1", "warning")


def test_unfinished_checksums(kernel: Broken) -> None:
    """A program in the kernel cannot know of them, so that connections stay open in vain; the hosts see it."""

    def connects() -> bool:
        def connect() -> bool:
            with contextlib.suppress(TimeoutError), socket.create_connection((VIP, 80), 0.5):
                return True
            return False

        return kernel.lab.inside("client", connect)

    def findings() -> set[str]:
        report = [kernel.doctor(host) for host in ("host1", "host2", "host3")]
        return {one.seen for each in report for one in each.findings if one.check == "checksums"}

    before = findings()
    assert connects() and findings() == before
    with kernel.offload("router", "to-mux1", tx=True), kernel.offload("router", "to-mux2", tx=True):
        assert not connects()
        (seen,) = findings() - before
        assert "packets dropped for a wrong checksum since boot" in seen
        assert kernel.doctor("router").says("checksums", "tx offload is on at the veth to-mux1, to-mux2", "warning")
