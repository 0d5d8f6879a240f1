"""One service of a file is taken into another file, whose comments and other services stay."""

from pathlib import Path

import pytest

from lbmux.errors import ConfigError
from lbmux.manager.service_merge import MergeError, merge_service

NEW = Path("new.yaml")
CURRENT = b"""# the pool
muxes: [10.0.1.2]
services:
  # the web
  - name: web
    vip: 192.0.2.1
    protocol: tcp
    port: 80
    backends:
      - {dip: 10.1.1.2}
  # mail
  - name: mail
    vip: 192.0.2.1
    protocol: tcp
    port: 25
    backends: [{dip: 10.1.1.3}]
idle: {tcp_s: 60}  # short
"""
WEB = b"""services:
- name: web   # moved
  vip: 192.0.2.1
  protocol: tcp
  port: 80
  backends:
  - {dip: 10.1.1.9, weight: 5}
"""


def test_a_service_is_replaced() -> None:
    merged = merge_service(CURRENT, WEB, "web", NEW).decode()
    assert merged.startswith("# the pool\nmuxes") and merged.endswith("idle: {tcp_s: 60}  # short\n")
    assert "  - name: web   # moved\n    vip: 192" in merged and "10.1.1.2" not in merged and "name: mail" in merged


def test_a_service_is_added_after_the_others() -> None:
    merged = merge_service(CURRENT, WEB.replace(b"web", b"shop").replace(b"80", b"81"), "shop", NEW).decode()
    assert merged.index("name: mail") < merged.index("  - name: shop") < merged.index("idle:")


def test_the_last_service_without_an_end_of_line() -> None:
    current = CURRENT[: CURRENT.index(b"\nidle")]
    assert b"10.1.1.9" in merge_service(current, WEB.replace(b"web", b"mail").replace(b"80", b"25"), "mail", NEW)


def test_a_service_that_the_file_lacks() -> None:
    with pytest.raises(MergeError, match=r"new\.yaml has no such service"):
        merge_service(CURRENT, WEB, "mail", NEW)


def test_a_service_that_does_not_fit_the_others() -> None:
    with pytest.raises(ConfigError, match="another service has"):
        merge_service(CURRENT, WEB.replace(b"web", b"shop"), "shop", NEW)


def test_flow_style_is_refused() -> None:
    flow = b"services: [{name: web, vip: 192.0.2.1, protocol: tcp, port: 80, backends: [{dip: 10.1.1.2}]}]\n"
    for current, new in ((flow, WEB), (CURRENT, flow)):
        with pytest.raises((MergeError, ConfigError)):
            merge_service(current, new, "web", NEW)


POOLS = b"pools: {front: [{dip: 10.1.1.7}]}\n"
POOLED = WEB.replace(b"  backends:\n  - {dip: 10.1.1.9, weight: 5}\n", b"  pool: front\n") + POOLS


def test_a_service_with_a_pool() -> None:
    new = POOLED.replace(b"web", b"shop").replace(b"80", b"81")
    merged = merge_service(CURRENT + POOLS, new, "shop", NEW).decode()
    assert "    pool: front\n" in merged and merged.endswith(POOLS.decode())


def test_a_pool_is_not_changed_with_a_service() -> None:
    with pytest.raises(MergeError, match="its pool front is another one in the current revision"):
        merge_service(CURRENT + POOLS, POOLED.replace(b"10.1.1.7", b"10.1.1.8"), "web", NEW)
    with pytest.raises(MergeError, match="it joins pool front, whose services it may change"):
        merge_service(CURRENT + POOLS, POOLED, "web", NEW)
