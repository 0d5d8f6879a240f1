"""Wide-area links of topologies: a node between sites that delays frames, and Ananta with distant clients."""

from collections.abc import Mapping
from dataclasses import replace

from lbmux.lab.topology import WIRE, Link, Node, Port, Program, Topology, ananta

ONE_WAY_MS, JITTER_MS = 75, 1
"""A round-trip time of 150 ms, as between a user and a data centre on another continent."""


def wan(name: str, sites: Mapping[str, str], *paths: str) -> Node:
    """Return a node that joins sites. ``sites``: its interface to each; ``paths`` as for `lbmux lab wan`."""
    options = [text for site, interface in sites.items() for text in ("--site", f"{site}={interface}")]
    options += [text for path in paths for text in ("--path", path)]
    return Node(name, "wan", programs=(Program("wan", "lbmux.cli.main", ("lab", "wan", *options)),))


def joined(near: Port, far: Port, node: str) -> tuple[Link, Link]:
    """Return two links with a node between their ends, which sends frames as on a wire."""
    return (
        Link(Port(node, f"to-{near.node}"), replace(near, offloads=WIRE)),
        Link(Port(node, f"to-{far.node}"), replace(far, offloads=WIRE)),
    )


def ananta_wan() -> Topology:
    """Ananta, with a client that is far away."""
    plain = ananta()
    first, *others = plain.links
    node = wan(
        "wan", {"site": "to-router", "users": "to-client"}, f"users>site:{ONE_WAY_MS},{JITTER_MS}"
    )  # fmt: skip
    links = (*joined(first.a, first.b, "wan"), *others)
    return replace(plain, name="ananta-wan", nodes=(*plain.nodes, node), links=links)
