"""Traced frames."""

from dataclasses import dataclass

from lbmux.api.answers.program_answer import ProgramAnswer


@dataclass(frozen=True)
class TraceStart(ProgramAnswer):
    """The first answer to Trace.  ``unseen``: why frames of the kernel programs are not traced, or empty."""

    interface: str
    unseen: str


@dataclass(frozen=True)
class SentFrame:
    """A frame that the slow path sent: ``time_ns`` since 1970, ``frame`` in base64, ``length`` in bytes on the wire."""

    time_ns: int
    interface: str
    frame: str
    length: int


@dataclass(frozen=True)
class SlowPathReport:
    """The slow path's counters that changed, and the frames that it sent."""

    did: list[str]
    sent: list[SentFrame]


@dataclass(frozen=True)
class TracedFrame:
    """A frame as it came, its verdict, and as it ``left``; frames are base64, times nanoseconds since 1970."""

    program: str
    time_ns: int
    interface: str
    line: str
    frame: str
    length: int
    verdict: str
    kind: str
    dropped: bool
    service: str | None
    backend: str | None
    left: str | None
    left_by: str | None
    left_ns: int | None
    left_length: int | None
    is_reply: bool
    tunnel_ports: dict[str, int]
    slowpath: SlowPathReport | None


@dataclass(frozen=True)
class TraceBatch:
    """Matching frames; ``skipped`` frames were not examined, and ``lost`` matches not kept, since the last answer."""

    frames: list[TracedFrame]
    skipped: int
    lost: int
