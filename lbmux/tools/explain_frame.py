"""What a mux does with a frame that came: explain, of its own bytes.

What the data path leaves to the slow path (lbmux.slowpath) because of the flow that it is of, or tells of, has the
steps of a packet of that flow.
"""

from dataclasses import replace
from pathlib import Path

from lbmux.addresses import Address
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.echo import is_echo_request
from lbmux.slowpath.icmp_quotes import flow_of
from lbmux.targets.bpf.tapped_programs import MOST_BYTES
from lbmux.tools.explain_mux import Explanation, Step, explain_live
from lbmux.tools.packet_text import Packet
from lbmux.tracing.trace_event import NAMES, HeaderSummary
from lbmux.wire.packet import read_frame

OF_THE_CHOICE = ("service", "access", "backends", "flow", "slot", "backend", "next hop")


def explain_frame(frame: bytes, path: Path) -> Explanation:
    """PacketError for a frame that is not IP."""
    if len(frame) >= MOST_BYTES:  # the kernel's programs record no more: what is missing is payload
        header_summary = HeaderSummary.read(frame)
        frame = frame.ljust(header_summary.start + header_summary.length, b"\0")
    explanation = explain_live(Packet.of_frame(frame), path)
    if explanation.verdict not in (Verdict.FRAGMENT, Verdict.ICMP):
        return explanation
    said, flow = _left_to_the_slow_path(frame)
    first, *others = explanation.steps
    steps = [first, Step("slow path", said)]
    if flow is not None:
        steps += [step for step in explain_live(flow, path).steps if step.step in OF_THE_CHOICE]
    return replace(explanation, steps=[*steps, *others])


def _left_to_the_slow_path(frame: bytes) -> tuple[str, Packet | None]:
    """What that does with it, and a packet of the flow that is meant, where the frame tells."""
    packet = read_frame(frame)
    if packet is None:
        return "cannot be read, so the kernel has it", None
    if packet.is_fragment and packet.ports is not None:
        source_port, port = packet.ports
        flow = _of_flow(packet.protocol, packet.source, source_port, packet.destination, port)
        return f"the first fragment of a packet of {flow}: all of them go to its backend", flow
    if packet.is_fragment:
        return "a later fragment: it goes where the first of its packet goes", None
    if is_echo_request(packet):
        return "a ping: of a VIP it is answered, as `slowpath` says", None
    about = flow_of(packet)
    if about is None:
        return "ICMP that tells of no flow of a VIP", None
    flow = _of_flow(about.protocol, about.client, about.client_port, about.vip, about.vip_port)
    return f"an ICMP error about {flow}: it goes to its backend", flow


def _of_flow(protocol: int, client: Address, client_port: int, vip: Address, vip_port: int) -> Packet:
    return Packet(client, client_port, vip, vip_port, NAMES[protocol])
