"""The built-in topologies by name: Ananta, and other published systems to compare with."""

from collections.abc import Callable

from lbmux.lab.systems.ananta_wide import wide
from lbmux.lab.systems.cloudflare import anycast, balanced, cloudflare
from lbmux.lab.systems.facebook import facebook
from lbmux.lab.systems.facebook_global import facebook_global
from lbmux.lab.systems.maglev_topology import maglev
from lbmux.lab.systems.seesaw import seesaw
from lbmux.lab.systems.wan import ananta_wan
from lbmux.lab.topology import Topology, ananta, ananta_bgp, ananta_frr

TOPOLOGIES: dict[str, Callable[[], Topology]] = {
    "ananta": ananta,
    "ananta-bgp": ananta_bgp,
    "ananta-frr": ananta_frr,
    "ananta-wan": ananta_wan,
    "ananta-wide": wide,
    "cloudflare": cloudflare,
    "cloudflare-anycast": anycast,
    "cloudflare-balanced": balanced,
    "facebook": facebook,
    "facebook-global": facebook_global,
    "maglev": maglev,
    "seesaw": seesaw,
}
DEFAULT = "ananta"
