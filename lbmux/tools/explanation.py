"""The explanation of a packet's path: the result of each step, the verdict, and a hint if it is not forwarded."""

from dataclasses import asdict, dataclass, field
from typing import Any

from lbmux.datapath.verdicts import Verdict
from lbmux.tools.packet_text import ClientPacket


@dataclass(frozen=True)
class Step:
    """The result of one step: ``found`` for people, ``data`` for programs."""

    step: str
    found: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Explanation:
    """All steps of a packet.  ``hint``: what to do if it is not forwarded; ``outer``: the frame that leaves."""

    packet: ClientPacket
    source: str
    steps: list[Step]
    verdict: Verdict
    service: str | None
    backend: str | None
    hint: str
    outer: bytes = b""

    @property
    def has_flow(self) -> bool:
        """Whether the mux has a live entry of the packet's flow."""
        return any(entry["alive"] for step in self.steps for entry in step.data.get("entries", ()))

    def as_json(self) -> dict[str, Any]:
        """Return the explanation as the object that `lbmux explain -j` prints."""
        packet = asdict(self.packet) | {"source": str(self.packet.source), "vip": str(self.packet.vip)}
        del packet["caught"]
        return {
            "version": 1,
            "packet": packet,
            "from": self.source,
            "steps": [{"step": step.step, "found": step.found, **step.data} for step in self.steps],
            "verdict": self.verdict.label,
            "kind": self.verdict.kind,
            "service": self.service,
            "backend": self.backend,
            "hint": self.hint or None,
        }
