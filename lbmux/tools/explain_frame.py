"""Explain a captured frame: run its own bytes through the steps that a mux takes.

For a frame that the data path punts to the slow path (a fragment, an ICMP message), the steps of a packet of the flow
that the frame belongs to follow.
"""

import ctypes
from dataclasses import replace
from pathlib import Path

from lbmux.addresses import Address
from lbmux.api.channel import ControlTarget
from lbmux.config.models import Config
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import CaptureError
from lbmux.plurals import counted
from lbmux.slowpath.echo import is_echo_request
from lbmux.slowpath.icmp_quotes import flow_of
from lbmux.targets.bpf.tapped_programs import MOST_BYTES
from lbmux.tools.explain_mux import explain_configuration, explain_live
from lbmux.tools.explanation import Explanation, Step
from lbmux.tools.packet_text import ClientPacket
from lbmux.tools.replay.looped_capture import LoopedCapture
from lbmux.tracing.header_summary import NAMES, HeaderSummary
from lbmux.wire.packet import read_frame

CHOICE_STEPS = ("service", "access", "backends", "flow", "slot", "backend", "next hop")


def explain_frame(frame: bytes, mux: ControlTarget | Config) -> Explanation:
    """Explain by the mux that listens at a control socket, or by a configuration alone.

    Raise PacketError for a frame that is not IP.
    """
    if len(frame) >= MOST_BYTES:  # the kernel programs record no more; the missing bytes are payload
        header_summary = HeaderSummary.read(frame)
        frame = frame.ljust(header_summary.start + header_summary.length, b"\0")
    explanation = _explain(ClientPacket.of_frame(frame), mux)
    if explanation.verdict not in (Verdict.FRAGMENT, Verdict.ICMP):
        return explanation
    result, flow = _slow_path(frame)
    first, *others = explanation.steps
    steps = [first, Step("slow path", result)]
    if flow is not None:
        steps += [step for step in _explain(flow, mux).steps if step.step in CHOICE_STEPS]
    return replace(explanation, steps=[*steps, *others])


def frame_of(path: Path, number: int) -> bytes:
    """Return frame ``number`` of a capture, counted from 1. A frame without an Ethernet header gets one.

    Raise CaptureError if the capture is damaged before that frame or has fewer frames, SetupError if it
    does not open.
    """
    with LoopedCapture(path) as looped:
        before = 0
        for frames in looped.batches():
            if number <= before + frames.count:
                at = number - before - 1
                return ctypes.string_at(int(frames.address[at]), int(frames.length[at]))
            before += frames.count
        raise CaptureError(path, looped.offset, f"ends after {counted(before, 'packet')}: there is no packet {number}")


def _explain(packet: ClientPacket, mux: ControlTarget | Config) -> Explanation:
    return explain_configuration(packet, mux) if isinstance(mux, Config) else explain_live(packet, mux)


def _slow_path(frame: bytes) -> tuple[str, ClientPacket | None]:
    """Return what the slow path does with the frame, and a packet of its flow if the frame identifies one."""
    packet = read_frame(frame)
    if packet is None:
        return "not readable: passed to the kernel", None
    if packet.is_fragment and packet.ports is not None:
        source_port, port = packet.ports
        flow = _packet_of(packet.protocol, packet.source, source_port, packet.destination, port)
        return f"the first fragment of a packet of {flow}: every fragment goes to its backend", flow
    if packet.is_fragment:
        return "a later fragment: it follows the first fragment of its packet", None
    if is_echo_request(packet):
        return "an echo request: for a VIP it is answered as `slowpath` configures", None
    about = flow_of(packet)
    if about is None:
        return "an ICMP message that quotes no flow of a VIP", None
    flow = _packet_of(about.protocol, about.client, about.client_port, about.vip, about.vip_port)
    return f"an ICMP error about {flow}: it goes to the flow's backend", flow


def _packet_of(protocol: int, client: Address, client_port: int, vip: Address, vip_port: int) -> ClientPacket:
    return ClientPacket(client, client_port, vip, vip_port, NAMES[protocol])
