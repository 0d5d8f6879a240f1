"""An nftables balancer for comparison: a Maglev table as a map, and ``fwd`` at netdev ingress.

It has no flow table and no tunnel: it writes the backend's MAC address into the frame and sends it back (L2 DSR).
"""

from pathlib import Path

from bench.frames import BACKENDS, PORT, VIP
from lbmux.lab.lab import Lab
from lbmux.tables import maglev

TABLE = """table netdev lbmux_bench {{
  chain ingress {{
    type filter hook ingress device "{interface}" priority 0; policy accept;
    ip daddr {vip} tcp dport {port} \\
      ether daddr set jhash ip saddr . tcp sport mod {size} seed 0x1 map {{ {slots} }} fwd to "{interface}"
  }}
}}
"""


def install(lab: Lab, node: str, interface: str) -> None:
    """Load the balancer in a lab node. It is removed with the node."""
    table = maglev.build([f"b{n}" for n in range(BACKENDS)], [1] * BACKENDS)
    slots = ", ".join(f"{slot} : 02:00:00:00:01:{backend:02x}" for slot, backend in enumerate(table.tolist()))
    text = TABLE.format(interface=interface, vip=VIP, port=PORT, size=len(table), slots=slots)
    path = Path(lab.directory, "balancer.nft")
    path.write_text(text)
    lab.run(node, ["nft", "-f", str(path)], check=True)
